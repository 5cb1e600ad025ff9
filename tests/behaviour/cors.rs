//! Which web pages may read the answers to long-polling (contract 2.1).

use super::harness::{Evows, KEY, Reply, Setup};

on_every_engine!(
    pages_of_every_origin_may_read_by_default,
    only_pages_of_listed_origins_may_read,
    preflights_are_answered_with_what_was_asked_for,
);

const LISTED: &str = "https://a.example";
const OTHER: &str = "https://other.example";

/// What the answers to a session's requests are, from a page of `origin`: the handshake, a POST, a poll, an error.
async fn session(evows: &Evows, origin: Option<&str>) -> [Reply; 4] {
    let headers: Vec<_> = origin
        .map(|origin| ("origin", origin))
        .into_iter()
        .collect();
    let path = format!("/socket.io/?EIO=4&transport=polling&apikey={KEY}");
    let open = evows.request("GET", &path, &headers, "").await;
    let (_, rest) = open.body.split_once(r#""sid":""#).expect("a handshake");
    let (sid, _) = rest.split_once('"').expect("a handshake");
    let path = format!("/socket.io/?EIO=4&transport=polling&sid={sid}");
    let posted = evows.request("POST", &path, &headers, "40").await;
    let polled = evows.request("GET", &path, &headers, "").await;
    let path = "/socket.io/?EIO=4&transport=polling&sid=nobody";
    let refused = evows.request("GET", path, &headers, "").await;
    let statuses = [&open, &posted, &polled, &refused].map(|reply| reply.status);
    assert_eq!(statuses, [200, 200, 200, 400], "{origin:?}");
    [open, posted, polled, refused]
}

async fn pages_of_every_origin_may_read_by_default(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    for origin in [None, Some(LISTED), Some(OTHER)] {
        for reply in session(&evows, origin).await {
            assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
            assert_eq!(reply.header("access-control-allow-credentials"), None);
            assert_eq!(reply.header("vary"), None);
        }
    }
}

async fn only_pages_of_listed_origins_may_read(engine: &str) {
    let evows = Setup::policy("global")
        .engine(engine)
        .server(&format!(
            "cors_origins = [\"https://b.example\", \"{LISTED}\"]"
        ))
        .start()
        .await;
    for (origin, allowed) in [
        (Some(LISTED), Some(LISTED)),
        // Served all the same: it is the browser that keeps the answer from the page.
        (Some(OTHER), None),
        (None, None),
    ] {
        for reply in session(&evows, origin).await {
            assert_eq!(reply.header("access-control-allow-origin"), allowed);
            assert_eq!(reply.header("access-control-allow-credentials"), None);
            let vary = reply.header("vary").expect("answers differ by origin");
            assert!(vary.eq_ignore_ascii_case("origin"), "{vary}");
        }
    }
}

async fn preflights_are_answered_with_what_was_asked_for(engine: &str) {
    let evows = Setup::policy("global").engine(engine).start().await;
    let path = "/socket.io/?EIO=4&transport=polling";
    let headers = [
        ("origin", OTHER),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "apikey, x-more"),
    ];
    let reply = evows.request("OPTIONS", path, &headers, "").await;
    assert_eq!((reply.status, &*reply.body), (204, ""));
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        (
            "access-control-allow-methods",
            "GET,HEAD,PUT,PATCH,POST,DELETE",
        ),
        ("access-control-allow-headers", "apikey, x-more"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{name}");
    }
}
