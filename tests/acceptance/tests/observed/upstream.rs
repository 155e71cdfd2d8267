//! What both proxies forward to: an HTTP/1.1 server whose path says what becomes of the request, and a TCP echo.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

/// Serves until the process ends. Returns the ports of HTTP and TCP.
pub fn start() -> (u16, u16) {
    (listen(http), listen(echo))
}

/// A port of loopback on which nothing listens.
pub fn refusing_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port")
        .port()
}

fn listen(serve: fn(TcpStream) -> std::io::Result<()>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    port
}

fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
    }
}

fn http(stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim_end().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length: ") {
                length = value.parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let path = line.split(' ').nth(1).unwrap_or_default();
        let path = path.split('?').next().unwrap_or_default();
        let last = path.rsplit('/').next().unwrap_or_default();
        match last {
            "close" => return Ok(()),
            "partial" => {
                return stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
            }
            "garbage" => return stream.write_all(b"NOT HTTP\r\n\r\n"),
            "slow" => thread::sleep(Duration::from_secs(1)),
            _ => {}
        }
        let (status, kind) = match last {
            "500" => ("500 Internal Server Error", "content-type: text/plain"),
            "grpc" => ("200 OK", "content-type: application/grpc\r\ngrpc-status: 5"),
            _ => ("200 OK", "content-type: text/plain"),
        };
        let text = format!("hello {length}");
        let head = format!(
            "HTTP/1.1 {status}\r\nserver: up\r\nx-answer: 42\r\n{kind}\r\ncontent-length: {}\r\n\r\n",
            text.len()
        );
        let is_head = line.starts_with("HEAD ");
        stream.write_all(head.as_bytes())?;
        if !is_head {
            stream.write_all(text.as_bytes())?;
        }
    }
}
