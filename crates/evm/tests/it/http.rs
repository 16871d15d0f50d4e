//! HTTP: who may ask.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use welkin_evm::{HttpConfig, serve_http};

use crate::world::open;

const BODY: &str = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#;

async fn request(at: SocketAddr, method: &str, headers: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let length = body.len();
    let text = format!(
        "{method} / HTTP/1.1\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // A server that refuses a body need not read it to its end.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn pages_of_strangers_may_not_ask() {
    let folder = tempfile::tempdir().unwrap();
    let chain = open(&folder.path().join("chain.redb"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let config = HttpConfig {
        origins: vec!["https://wallet.example".to_owned()],
        hosts: vec!["chain.example".to_owned()],
    };
    let mut server = JoinSet::new();
    server.spawn(serve_http(listener, chain, config));
    let status = |answer: &str| answer.get(9..12).unwrap_or_default().to_owned();
    for (method, headers, expected) in [
        ("POST", "Host: localhost:1\r\n", "200"),
        ("POST", "Host: 127.0.0.1\r\n", "200"),
        ("POST", "Host: [::1]:8545\r\n", "200"),
        ("POST", "Host: chain.example:80\r\n", "200"),
        ("POST", "Host: evil.example\r\n", "403"),
        ("POST", "Host: localhost.evil.example\r\n", "403"),
        ("POST", "Host: localhost\r\nOrigin: https://evil.example\r\n", "403"),
        ("POST", "Host: localhost\r\nOrigin: null\r\n", "403"),
        ("POST", "Host: localhost\r\nOrigin: https://wallet.example\r\n", "200"),
        ("OPTIONS", "Host: localhost\r\nOrigin: https://wallet.example\r\n", "204"),
        ("OPTIONS", "Host: localhost\r\nOrigin: https://evil.example\r\n", "403"),
        ("GET", "Host: localhost\r\n", "405"),
    ] {
        let answer = request(at, method, headers, BODY).await;
        assert_eq!(status(&answer), expected, "{method} {headers} {answer}");
        let is_shown = answer.contains("access-control-allow-origin: https://wallet.example");
        assert_eq!(is_shown, headers.contains("wallet") && expected.starts_with('2'));
    }
    let answer = request(at, "POST", "Host: localhost\r\n", BODY).await;
    assert!(answer.ends_with(r#""result":"0x64aba"}"#), "{answer}");
    let long = " ".repeat((1 << 20) + 1);
    let answer = request(at, "POST", "Host: localhost\r\n", &long).await;
    assert!(answer.is_empty() || status(&answer) == "413", "{answer}");
}
