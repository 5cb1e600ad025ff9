//! Clients that stop reading: they are closed, and nobody else notices.

use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::{Evows, Frames, KEY, PATIENCE, Setup, message};

on_every_engine!(
    stalled_clients_are_closed_and_healthy_ones_lose_nothing,
    a_client_that_stops_answering_pings_is_closed,
);

/// A websocket client of `/` that joined and then reads nothing. Its receive buffer is small, so that the
/// server feels it soon.
async fn stalled(evows: &Evows) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    socket.connect(&evows.address().into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut stream = TcpStream::from_std(socket.into()).unwrap();
    let request = format!(
        "GET /socket.io/?EIO=4&transport=websocket&apikey={KEY} HTTP/1.1\r\nHost: localhost\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    // "40" as a masked text frame, under a mask of zeros.
    stream.write_all(b"\x81\x82\0\0\0\x0040").await.unwrap();
    let mut seen = Vec::new();
    while !seen.windows(3).any(|window| window == b"40{") {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut seen)).await;
        assert_ne!(read.unwrap().unwrap(), 0, "closed before it joined");
    }
    stream
}

async fn stalled_clients_are_closed_and_healthy_ones_lose_nothing(engine: &str) {
    let evows = Setup::policy("global")
        .engine(engine)
        .transport("max_lag = \"2s\"")
        .start()
        .await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        slow.push(stalled(&evows).await);
    }
    let mut healthy = Vec::new();
    for _ in 0..5 {
        let mut frames = Frames::connect(&evows).await;
        frames.join("/").await;
        healthy.push(frames);
    }

    // 48 MB for each client: far more than the sockets' buffers and the queue in front of it together.
    let text = "x".repeat(16 * 1024);
    let count = 3_000;
    let readers: Vec<_> = healthy
        .into_iter()
        .map(|mut frames| {
            tokio::spawn(async move {
                for id in 0..count {
                    let packet = frames.text().await;
                    assert!(packet.contains(&format!(r#""id":"{id} "#)), "{packet:.200}");
                }
            })
        })
        .collect();
    let mut largest = 0;
    for id in 0..count {
        evows.post(&message("loja1", &format!("{id} {text}"))).await;
        if id % 100 == 0 {
            largest = largest.max(evows.resident());
        }
    }
    for reader in readers {
        reader.await.unwrap();
    }
    // What stalled clients have not taken is in the shared log, once, however many they are.
    assert!(
        largest < 200 * 1024 * 1024,
        "{largest} bytes resident: stalled clients are paid for one by one"
    );

    for mut stream in slow {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "a stalled client was kept");
    }
}

async fn a_client_that_stops_answering_pings_is_closed(engine: &str) {
    let evows = Setup::policy("global")
        .engine(engine)
        .transport("ping_interval = \"200ms\"")
        .transport("ping_timeout = \"200ms\"")
        .start()
        .await;
    let mut alive = Frames::connect(&evows).await;
    alive.join("/").await;
    let answering = tokio::spawn(async move {
        let packet = alive.text().await;
        assert!(packet.contains("messages.upsert"), "{packet}");
    });

    let mut silent = stalled(&evows).await;
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "a silent client was kept");

    tokio::time::sleep(Duration::from_millis(500)).await;
    evows.post(&message("loja1", "1")).await;
    answering.await.unwrap();
}
