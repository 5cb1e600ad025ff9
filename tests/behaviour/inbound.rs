//! What browser pages load from the server, and what clients send to it.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use super::harness::{Frame, Frames, PATIENCE, Setup, message};

/// Where the installed client has its files.
const DIST: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/clients/node_modules/socket.io-client/dist"
);

#[tokio::test]
async fn the_client_is_served_from_its_package() {
    let evows = Setup::policy("global")
        .transport(&format!("serve_client = \"{DIST}\""))
        .start()
        .await;
    for (name, kind) in [
        ("socket.io.js", "application/javascript; charset=utf-8"),
        (
            "socket.io.esm.min.js",
            "application/javascript; charset=utf-8",
        ),
        (
            "socket.io.msgpack.min.js",
            "application/javascript; charset=utf-8",
        ),
        ("socket.io.js.map", "application/json; charset=utf-8"),
    ] {
        let path = format!("/socket.io/{name}");
        let reply = evows.request("GET", &path, &[], "").await;
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (200, Some(kind)),
            "{name}"
        );
        let file = std::fs::read_to_string(format!("{DIST}/{name}")).unwrap();
        assert!(reply.body == file, "{name} is another file");
        let tag = reply.header("etag").unwrap().to_owned();
        let again = [("if-none-match", &*tag)];
        let reply = evows.request("GET", &path, &again, "").await;
        assert_eq!(reply.status, 304);
    }
    let reply = evows
        .request("GET", "/socket.io/package.json", &[], "")
        .await;
    assert_eq!(reply.json()["message"], "Transport unknown");
}

#[tokio::test]
async fn without_a_package_the_client_is_not_found() {
    let evows = Setup::policy("global").start().await;
    let reply = evows
        .request("GET", "/socket.io/socket.io.js", &[], "")
        .await;
    assert_eq!(reply.status, 404);

    let wrong = Setup::policy("global")
        .transport("serve_client = \"/nowhere\"")
        .spawn();
    let ended = wrong.ended().await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        ended
            .stderr
            .contains("`serve_client` is not the `dist` folder"),
        "{}",
        ended.stderr
    );
}

/// The body of the next request, which is answered 200.
async fn posted(listener: &TcpListener) -> Value {
    let read = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            match line.trim_end().to_ascii_lowercase().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                _ if line == "\r\n" => break,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("a request comes")
}

#[tokio::test]
async fn send_node_is_forwarded_and_everything_else_is_ignored() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/send-node", listener.local_addr().unwrap());
    let evows = Setup::policy("global")
        .transport(&format!("forward_send_node = \"{url}\""))
        .start()
        .await;
    let mut frames = Frames::connect(&evows).await;
    frames.join("/").await;
    frames.send(r#"42["send_message",{"a":1}]"#).await;
    frames
        .send(r#"42["sendNode",{"instanceId":"loja1","stanza":{"tag":"call"}}]"#)
        .await;
    let stanza = json!({"instanceId": "loja1", "stanza": {"tag": "call"}});
    assert_eq!(posted(&listener).await, stanza);

    frames
        .send(r#"451-["sendNode",{"content":{"_placeholder":true,"num":0}}]"#)
        .await;
    frames
        .send_message(Message::binary(vec![1, 2]))
        .await
        .unwrap();
    let bytes = json!({"content": {"type": "Buffer", "data": "AQI="}});
    assert_eq!(posted(&listener).await, bytes);

    // Nobody answered, and the client is still there.
    let event = message("loja1", "1");
    evows.post(&event).await;
    let packet = Frame::Text(format!(r#"42["messages.upsert",{event}]"#));
    assert_eq!(frames.next().await, packet);
}
