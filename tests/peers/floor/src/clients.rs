//! The clients of `/`, and the write loop.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;

use serde::Deserialize;
use slab::Slab;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Every client that has joined.
#[derive(Default)]
pub(crate) struct Clients(RefCell<Slab<Rc<TcpStream>>>);

// === impl Clients ===

impl Clients {
    /// Writes a frame to every client.
    pub(crate) fn write(&self, frame: &[u8]) {
        for (_, client) in &*self.0.borrow() {
            let written = rustix::io::write(client, frame);
            if written != Ok(frame.len()) {
                // Half a frame cannot be taken back. Whether it can still be shut down does not matter.
                SockRef::from(&**client).shutdown(Shutdown::Both).ok();
            }
        }
    }

    /// Speaks Engine.IO and Socket.IO with one client until it is gone.
    pub(crate) async fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let stream = Rc::new(stream);
        let open = r#"0{"sid":"floor","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;
        rustix::io::write(&stream, &frame(open.as_bytes()))?;
        let mut read = Vec::new();
        let mut place = None;
        let result = loop {
            if let Err(error) = more(&stream, &mut read).await {
                break Err(error);
            }
            while let Some(packet) = take(&mut read) {
                if packet.starts_with(b"40") && place.is_none() {
                    rustix::io::write(&stream, &frame(br#"40{"sid":"floor"}"#))?;
                    place = Some(self.0.borrow_mut().insert(Rc::clone(&stream)));
                }
            }
        };
        if let Some(place) = place {
            self.0.borrow_mut().remove(place);
        }
        result
    }
}

/// The frame of an envelope's event, if it is one.
pub(crate) fn event(envelope: &[u8]) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Named<'a> {
        event: &'a str,
    }
    let Named { event } = serde_json::from_slice(envelope).ok()?;
    let mut packet = format!("42[\"{event}\",").into_bytes();
    packet.extend_from_slice(envelope);
    packet.push(b']');
    Some(frame(&packet))
}

/// A text frame.
pub(crate) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..126), _) => frame.push(length),
        (_, Ok(length)) => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// Waits for bytes and reads them; the end is an error.
async fn more(stream: &TcpStream, read: &mut Vec<u8>) -> io::Result<()> {
    loop {
        stream.ready(Interest::READABLE).await?;
        match stream.try_read_buf(read) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result.map(|_| ()),
        }
    }
}

/// Takes the payload of a client's short frame, if it is all here. Longer ones do not occur.
fn take(read: &mut Vec<u8>) -> Option<Vec<u8>> {
    const HEADER: usize = 6;
    let length = usize::from(*read.get(1)? & 0x7f);
    let mask: [u8; 4] = read.get(2..HEADER)?.try_into().ok()?;
    let payload = read.get(HEADER..HEADER + length)?;
    let payload = payload.iter().zip(mask.iter().cycle());
    let payload = payload.map(|(byte, mask)| byte ^ mask).collect();
    read.drain(..HEADER + length);
    Some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_an_event_under_its_name() {
        let envelope = br#"{"event":"call","data":{}}"#;
        let frame = event(envelope).unwrap();
        assert_eq!(frame[2..], *br#"42["call",{"event":"call","data":{}}]"#);
        assert_eq!(usize::from(frame[1]), frame.len() - 2);
        assert!(event(b"{}").is_none());
    }

    #[test]
    fn takes_masked_frames_one_by_one() {
        let mut read = vec![0x81, 0x82, 1, 2, 3, 4, b'4' ^ 1, b'0' ^ 2, 0x81];
        assert_eq!(take(&mut read).unwrap(), b"40");
        assert_eq!(take(&mut read), None);
        assert_eq!(read, [0x81]);
    }
}
