//! One request of HTTP/1.1 to a server on this machine.

use std::io::{Error, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Status and body of what `address` ("host:port") answers. `body` is sent as JSON; without one nothing is.
///
/// # Errors
/// There is no connection, no whole answer within `patience` for each read, or an answer that is no HTTP.
pub fn request(
    address: &str,
    method: &str,
    path: &str,
    body: Option<&str>,
    patience: Duration,
) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    if let Some(body) = body {
        text += &format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
    }
    text += "\r\n";
    text += body.unwrap_or_default();
    stream.write_all(text.as_bytes())?;
    read_answer(&mut stream)
}

fn read_answer(stream: &mut impl Read) -> Result<(u16, String)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 1 << 16];
    loop {
        // Some servers keep the connection open after their answer.
        if let Some(answer) = whole(&bytes) {
            return Ok(answer);
        }
        match stream.read(&mut chunk)? {
            0 => break,
            read => bytes.extend_from_slice(&chunk[..read]),
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let answer = head_and_body(&text).filter(|(_, length, _)| length.is_none());
    let (status, _, body) =
        answer.ok_or_else(|| Error::other(format!("no whole answer: {:?}", text.get(..200))))?;
    Ok((status, body.to_owned()))
}

/// The answer, if it says how long it is and is there.
fn whole(bytes: &[u8]) -> Option<(u16, String)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let (status, length, _) = head_and_body(&head)?;
    let body = bytes.get(end..end + length?)?;
    Some((status, String::from_utf8_lossy(body).into_owned()))
}

/// The status, the body's length if it is said, and the body.
fn head_and_body(text: &str) -> Option<(u16, Option<usize>, &str)> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok()).flatten()
    });
    Some((status, length, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_by_its_length_or_to_the_end_and_half_an_answer_is_none() {
        let read = |text: &str| read_answer(&mut text.as_bytes());
        let (status, body) = read("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc").unwrap();
        assert_eq!((status, &*body), (200, "abc"));
        let (status, body) = read("HTTP/1.1 503 No\r\n\r\nabc").unwrap();
        assert_eq!((status, &*body), (503, "abc"));
        for half in [
            "",
            "HTTP/1.1 200",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc",
        ] {
            assert!(read(half).is_err(), "{half}");
        }
    }
}
