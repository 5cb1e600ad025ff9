//! Takes a port.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use evows_core::http::BindError;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

/// Connections that the system keeps ready for us; it lowers the number to its own limit. Clients of a
/// restarted server come back all at once.
const BACKLOG: i32 = 4096;

/// Listens on `address`; says the address as bound.
pub(super) fn listen(
    address: SocketAddr,
    user_timeout: Duration,
) -> Result<(TcpListener, SocketAddr), BindError> {
    open(address, user_timeout).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(address),
        io::ErrorKind::PermissionDenied => BindError::Denied(address),
        _ => BindError::Listen { address, source },
    })
}

fn open(address: SocketAddr, user_timeout: Duration) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restart must not wait for the old connections to time out. On Windows the option would let two
    // processes listen on one port.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    // Accepted connections inherit both, which spares two calls for each.
    #[cfg(target_os = "linux")]
    {
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_user_timeout(Some(user_timeout))?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = user_timeout;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
