//! TLS from PEM files.

use std::io;
use std::path::Path;
use std::sync::Arc;

use evows_core::config::TlsConfig;
use evows_core::http::BindError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{Error, ServerConfig};
use tokio_rustls::server::TlsStream;

/// A certificate and its key, ready for handshakes.
pub(super) struct Tls(TlsAcceptor);

// === impl Tls ===

impl Tls {
    /// Reads the files. Every error names the file that is wrong.
    pub(super) async fn load(files: &TlsConfig) -> Result<Self, BindError> {
        let chain = read(&files.cert).await?;
        let key = read(&files.key).await?;
        config(files, &chain, &key)
            .map(|config| Self(TlsAcceptor::from(Arc::new(config))))
            .map_err(BindError::Tls)
    }

    pub(super) async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.0.accept(stream).await
    }
}

async fn read(file: &Path) -> Result<Vec<u8>, BindError> {
    let bytes = tokio::fs::read(file).await;
    bytes.map_err(|error| BindError::Tls(format!("cannot read `{}`: {error}", file.display())))
}

fn config(files: &TlsConfig, chain: &[u8], key: &[u8]) -> Result<ServerConfig, String> {
    let (cert_file, key_file) = (files.cert.display(), files.key.display());
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("`{cert_file}` is not a PEM file: {error}"))?;
    if chain.is_empty() {
        return Err(format!("there is no certificate in `{cert_file}`"));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        pem::Error::NoItemsFound => format!("there is no private key in `{key_file}`"),
        error => format!("`{key_file}` is not a PEM file: {error}"),
    })?;
    // The provider is named, because a process with two of them has no default.
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| match error {
            Error::InconsistentKeys(_) => {
                format!(
                    "the key in `{key_file}` does not belong to the certificate in `{cert_file}`"
                )
            }
            Error::InvalidCertificate(error) => {
                format!("the certificate in `{cert_file}` is not valid: {error}")
            }
            error => format!("cannot use `{cert_file}` with the key in `{key_file}`: {error}"),
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
