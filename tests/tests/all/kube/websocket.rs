//! `exec` by WebSocket, as the API server offers it: a small client of its `v4.channel.k8s.io`.

use serde_json::Value;
use vestibule_tests::client::Client;

/// What a command has left behind.
pub struct Executed {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// What the API server says of its end.
    pub status: Value,
}

/// Runs a command in a pod, with these bytes on its standard input. `fields` say where the request goes, and as whom.
pub fn exec(mut client: Client, fields: &str, pod: &str, command: &[&str], stdin: &[u8]) -> Executed {
    let words: String = command.iter().map(|word| format!("&command={}", encoded(word))).collect();
    client.send(format!(
        "GET {pod}/exec?stdin=true&stdout=true&stderr=true{words} HTTP/1.1\r\n{fields}\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
    ));
    let head = client.head();
    assert_eq!((head.status, head.header("sec-websocket-protocol")), (101, Some("v4.channel.k8s.io")));
    // The first byte of a message is its channel: 0 is standard input.
    for part in stdin.chunks(60_000) {
        client.send(frame(&[&[0], part].concat()));
    }
    let mut executed = Executed { stdout: Vec::new(), stderr: Vec::new(), status: Value::Null };
    while executed.status.is_null() {
        let Some((channel, data)) = message(&mut client) else { panic!("it ended without a status") };
        match channel {
            1 => executed.stdout.extend(data),
            2 => executed.stderr.extend(data),
            3 => executed.status = serde_json::from_slice(&data).unwrap(),
            other => panic!("channel {other}"),
        }
    }
    executed
}

/// One binary frame as a client sends it, under a mask that changes nothing.
fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82];
    match payload.len() {
        short @ ..126 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(long).unwrap().to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The next message with anything in it; none where the other side closes.
fn message(client: &mut Client) -> Option<(u8, Vec<u8>)> {
    loop {
        let start = client.exactly(2).unwrap();
        let length = match start[1] & 127 {
            126 => u64::from(u16::from_be_bytes(client.exactly(2).unwrap().try_into().unwrap())),
            127 => u64::from_be_bytes(client.exactly(8).unwrap().try_into().unwrap()),
            short => u64::from(short),
        };
        let payload = client.exactly(length as usize).unwrap();
        match start[0] & 15 {
            8 => return None,
            _ if payload.len() > 1 => return Some((payload[0], payload[1..].to_vec())),
            // The server begins each channel with an empty message.
            _ => {}
        }
    }
}

fn encoded(word: &str) -> String {
    word.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
