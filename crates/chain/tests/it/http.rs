//! A node over HTTP that does not behave.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use welkin_chain::http::Http;
use welkin_chain::rpc::{ANSWER_BYTES_MAX, Rpc, RpcError};

/// A server that answers each request with the next of these bytes, then closes the connection.
fn server(answers: Vec<Vec<u8>>) -> Rpc {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/key/secret", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut part = [0; 4_096];
            // The question is JSON in one object, so it ends with its last brace.
            while !request.ends_with(b"}") {
                let read = stream.read(&mut part).unwrap();
                request.extend_from_slice(&part[..read]);
            }
            // Who is told to read no more may hang up: that is no fault of the test.
            let _ = stream.write_all(&answer);
        }
    });
    Rpc::new(Http::new(&url).unwrap())
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
        .into_bytes()
}

async fn asked(of: Vec<u8>) -> Result<u64, RpcError> {
    server(vec![of]).chain_id().await
}

#[tokio::test]
async fn answers_are_taken_and_refusals_told() {
    let good = r#"{"jsonrpc":"2.0","id":0,"result":"0x7a69"}"#;
    assert_eq!(asked(answer("200 OK", good)).await, Ok(31_337));
    let refused = r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32000,"message":"no"}}"#;
    for status in ["200 OK", "400 Bad Request", "500 Internal Server Error"] {
        let error = asked(answer(status, refused)).await.unwrap_err();
        assert!(matches!(error, RpcError::Refused { code: -32_000, .. }), "{status}: {error:?}");
    }
    let redirected = "302 Found\r\nlocation: http://127.0.0.1:1/";
    for (given, told) in [
        (answer("429 Too Many Requests", refused), "asked too often"),
        (answer("401 Unauthorized", ""), "does not let us in"),
        (answer("503 Service Unavailable", "<html>"), "HTTP 503"),
        (answer(redirected, ""), "HTTP 302"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec(), ""),
        (b"what?\r\n\r\n".to_vec(), ""),
    ] {
        let Err(RpcError::Unreachable(why)) = asked(given).await else { panic!("{told}") };
        assert!(why.0.contains(told), "{why}");
        assert!(!why.0.contains("secret"), "{why}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let mut endless = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{".to_vec();
    endless.resize(ANSWER_BYTES_MAX + 4_096, b' ');
    let Err(RpcError::Unreachable(why)) = asked(endless).await else { panic!() };
    assert!(why.0.contains("larger than"), "{why}");
}

#[tokio::test]
async fn a_node_that_is_not_there_is_said_to_be_unreachable() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let rpc = Rpc::new(Http::new(&format!("http://127.0.0.1:{port}")).unwrap());
    let Err(RpcError::Unreachable(why)) = rpc.chain_id().await else { panic!() };
    assert!(why.0.contains("refused"), "{why}");
}
