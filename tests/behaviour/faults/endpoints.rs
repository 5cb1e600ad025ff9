//! An endpoint that is slow now, fails then, and breaks connections off.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::super::harness::Setup;
use super::{Endpoint, Poster, check, pipeline};

/// What becomes of a request, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Slow,
    Unavailable,
    /// The connection is reset, and the event not taken.
    Gone,
    /// The connection is reset, and the event taken: it will come again.
    GoneWithIt,
}

const MOODS: [Mood; 7] = [
    Mood::Well,
    Mood::Unavailable,
    Mood::Slow,
    Mood::Gone,
    Mood::Well,
    Mood::GoneWithIt,
    Mood::Unavailable,
];

/// Serves an endpoint in all its moods, and returns its URL.
async fn serve(endpoint: &Endpoint) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let endpoint = endpoint.clone();
    tokio::spawn(async move {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        while let Ok((stream, _)) = listener.accept().await {
            let endpoint = endpoint.clone();
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                while let Ok(body) = read(&mut stream).await {
                    let count = COUNT.fetch_add(1, Ordering::Relaxed);
                    let mood = MOODS[usize::try_from(count).unwrap() % MOODS.len()];
                    if mood == Mood::Slow {
                        tokio::time::sleep(Duration::from_millis(30)).await;
                    }
                    if !matches!(mood, Mood::Unavailable | Mood::Gone) {
                        endpoint.0.take(&body);
                    }
                    let status = match mood {
                        Mood::Well | Mood::Slow => "200 OK",
                        Mood::Unavailable => "503 Service Unavailable",
                        Mood::Gone | Mood::GoneWithIt => {
                            let socket = socket2::SockRef::from(stream.get_ref());
                            socket.set_linger(Some(Duration::ZERO)).unwrap();
                            return;
                        }
                    };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// The body of the next request.
async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_of_many_moods_gets_everything_in_order() {
    let endpoint = Endpoint::default();
    let pipeline = pipeline(&serve(&endpoint).await, "");
    // More than half of the attempts fail, which is far beyond the usual budget.
    let patient = pipeline.replace("attempts = 0", "attempts = 0, budget = 1000");
    assert_ne!(patient, pipeline);
    let evows = Setup::pipeline(&patient).start().await;
    let poster = Poster::start(evows.address(), 8);
    poster.go_on(300).await;
    let answered = poster.stop().await;
    check(&evows, &endpoint, &answered).await;
    let duplicates = endpoint.duplicates();
    assert!(
        duplicates > 0,
        "what was taken without an answer comes again"
    );
}
