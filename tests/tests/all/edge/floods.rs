//! HTTP/2 under attack: each by its frames, on the gateway and on a real nginx beside it.

use std::collections::BTreeSet;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use http::Request;
use vestibule_tests::PATIENCE;
use vestibule_tests::http2::Http2Client;
use vestibule_tests::http2::frames::{
    ACK, CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, get,
};
use vestibule_tests::real::{Nginx, NginxTls};

use super::{Http2Edge, metric};

/// ENHANCE_YOUR_CALM (RFC 9113 section 7).
const CALM: u32 = 11;
const FLOW_CONTROL_ERROR: u32 = 3;
/// How often an attack repeats its frames.
const TIMES: u32 = 1000;
const LIMITS: &str = "limits: { http2: { resets: 50, control_frames: 100 } }";

/// What an attack sends for the `n`th time, on streams of its own.
type Attack = fn(stream: u32) -> Vec<u8>;

/// How a connection ended: the code of its GOAWAY, if one came.
fn end(client: &mut Client) -> io::Result<Option<u32>> {
    let mut code = None;
    loop {
        match client.frame() {
            Ok(frame) => code = frame.goaway_code().or(code),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(error);
            }
            Err(_) => return Ok(code),
        }
    }
}

/// Sends the whole attack; the end of the connection may cut it short.
fn attack(port: u16, attack: Attack) -> Client {
    let mut client = Client::tls(port, &[]);
    let bytes: Vec<u8> = (0..TIMES).flat_map(|n| attack(2 * n + 1)).collect();
    let _ = client.send(&bytes);
    client
}

fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &get())
}

fn rapid_reset(stream: u32) -> Vec<u8> {
    [open(stream), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
}

/// The second update is too much for the stream's window, so the server resets it.
fn made_you_reset(stream: u32) -> Vec<u8> {
    let most = frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff]);
    [open(stream), most.clone(), most].concat()
}

fn pings(_: u32) -> Vec<u8> {
    frame(PING, 0, 0, &[0; 8])
}

fn settings(_: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[])
}

fn priorities(stream: u32) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 16])
}

fn window_updates(_: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])
}

/// A body without an end and without a byte.
fn empty_data(stream: u32) -> Vec<u8> {
    if stream == 1 { frame(HEADERS, END_HEADERS, 1, &get()) } else { frame(DATA, 0, 1, &[]) }
}

fn unknown_frames(_: u32) -> Vec<u8> {
    frame(0x55, 0, 0, &[0; 8])
}

/// A header block without an end.
fn continuations(stream: u32) -> Vec<u8> {
    // A literal that is not indexed: `x: y`.
    if stream == 1 {
        frame(HEADERS, END_STREAM, 1, &get())
    } else {
        frame(CONTINUATION, 0, 1, b"\x00\x01x\x01y")
    }
}

/// An entry of 4000 bytes for the table that both sides keep, and then a request that refers to it a thousand times.
fn hpack_bomb(stream: u32) -> Vec<u8> {
    let mut block = get();
    if stream == 1 {
        block.extend(b"\x40\x01x\x7f\xa1\x1e");
        block.extend([b'v'; 4000]);
    } else {
        block.extend([0xbe; 1000]);
    }
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
}

/// Asks and is answered, on a connection that is there already.
fn is_served(client: &Http2Client) -> bool {
    let request = Request::get("https://a.test/").body(()).unwrap();
    client.send(request, true).response().status == 200
}

#[test]
fn a_flood_ends_its_own_connection_and_no_other() {
    let attacks: [(&str, Attack, &str); 9] = [
        ("rapid reset", rapid_reset, "http2_resets"),
        ("resets that the server is made to send", made_you_reset, "http2_resets"),
        ("PING", pings, "http2_control_frames"),
        ("SETTINGS", settings, "http2_control_frames"),
        ("PRIORITY", priorities, "http2_control_frames"),
        ("WINDOW_UPDATE", window_updates, "http2_control_frames"),
        ("empty DATA", empty_data, "http2_control_frames"),
        ("unknown frames", unknown_frames, "http2_control_frames"),
        ("CONTINUATION", continuations, "http2_excess"),
    ];
    for (name, frames, reason) in attacks {
        // That the other limit is not the one that ends it.
        let limits = match reason {
            "http2_resets" => "limits: { http2: { resets: 5, control_frames: 1000000 } }",
            _ => "limits: { http2: { resets: 1000000, control_frames: 10 } }",
        };
        let edge = Http2Edge::start(limits, 10);
        let nginx = Nginx::start(&NginxTls::new(&edge.certificate));
        let neighbour = Http2Client::tls(edge.port, "a.test");
        assert!(is_served(&neighbour));
        let ended = end(&mut attack(edge.port, frames)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(ended.is_none_or(|code| code == CALM), "{name}: {ended:?}");
        // Some of it the protocol's own bounds may have cut before, as it reaches the gateway in pieces of any size.
        let counted: u64 = [reason, "http2_control_frames", "http2_excess"]
            .into_iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(|reason| {
                let labels = format!("{{listener=\"web\",reason=\"{reason}\"}}");
                metric(edge.admin, &format!("vestibule_listener_over_limit_total{labels}"))
            })
            .sum();
        assert_eq!(counted, 1, "{name}: {}", edge.gateway.stderr());
        edge.gateway.wait_for("127.0.0.1: http2_");
        // However many it asked for: what was upstream when it ended.
        assert!(
            edge.origin.requests().len() < TIMES as usize / 2,
            "{name}: {}",
            edge.origin.requests().len()
        );
        assert!(is_served(&neighbour), "{name}: the neighbour is not served");
        assert!(is_served(&Http2Client::tls(edge.port, "a.test")), "{name}: nobody else is served");
        // What nginx says to the same bytes differs by its version; docs/limits.md tells. It serves on, too.
        let mut told = attack(nginx.h2_port, frames);
        told.socket().set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        eprintln!("{name}: nginx: {:?}", end(&mut told));
        drop(told);
        assert!(is_served(&Http2Client::tls(nginx.h2_port, "a.test")), "{name}: nginx");
    }
}

#[test]
fn a_client_that_went_over_a_limit_is_told_so() {
    let edge = Http2Edge::start(LIMITS, 10);
    // Little enough to be under way as a whole before the answer comes.
    let mut client = Client::tls(edge.port, &[]);
    client.send(&(0..400).flat_map(pings).collect::<Vec<_>>()).unwrap();
    let goaway = client.wait_for(|frame| frame.kind == GOAWAY).unwrap();
    assert_eq!(goaway.goaway_code(), Some(CALM));
    assert_eq!(end(&mut client).unwrap(), None);
}

#[test]
fn what_the_limits_allow_goes_on() {
    let edge = Http2Edge::start(LIMITS, 10);
    let mut client = Client::tls(edge.port, &[]);
    let acked = |frame: &Frame| frame.kind == PING && frame.flags & ACK != 0;
    // The client's own SETTINGS count, too.
    client.send(&(0..90).flat_map(pings).collect::<Vec<_>>()).unwrap();
    for _ in 0..90 {
        client.wait_for(acked).unwrap();
    }
    // So many resets at once, and a request that is served still.
    client.send(&(0..50).flat_map(|n| rapid_reset(2 * n + 1)).collect::<Vec<_>>()).unwrap();
    client.send(&open(1001)).unwrap();
    client.wait_for(|frame| frame.stream == 1001 && frame.kind == HEADERS).unwrap();
}

#[test]
fn a_hundred_requests_at_once_and_long_answers_are_no_flood() {
    // Unlimited but by the defaults.
    let edge = Http2Edge::start("", 300_000);
    let client = Http2Client::tls(edge.port, "a.test");
    thread::scope(|scope| {
        let one = || {
            let request = Request::get("https://a.test/").body(()).unwrap();
            client.send(request, true).response().body.len()
        };
        let all: Vec<_> = (0..100).map(|_| scope.spawn(one)).collect();
        assert!(all.into_iter().all(|asked| asked.join().unwrap() == 300_000));
    });
    // A browser whose user goes elsewhere gives up all of them.
    let mut client = Client::tls(edge.port, &[]);
    client.send(&(0..100).flat_map(|n| rapid_reset(2 * n + 1)).collect::<Vec<_>>()).unwrap();
    client.send(&open(1001)).unwrap();
    client.wait_for(|frame| frame.stream == 1001 && frame.kind == HEADERS).unwrap();
}

#[test]
fn a_header_list_that_unfolds_without_bound_is_refused() {
    let edge = Http2Edge::start(LIMITS, 10);
    let neighbour = Http2Client::tls(edge.port, "a.test");
    let mut client = attack(edge.port, hpack_bomb);
    assert!(end(&mut client).unwrap().is_none_or(|code| code == CALM));
    // The first request, which fills the table, may pass; each of the others is 4 MB.
    assert!(edge.origin.requests().len() <= 1, "{}", edge.origin.requests().len());
    assert!(is_served(&neighbour));
}

#[test]
fn a_window_that_overflows_ends_the_connection() {
    let edge = Http2Edge::start(LIMITS, 10);
    let mut client = Client::tls(edge.port, &[]);
    let most = frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]);
    client.send(&[most.clone(), most].concat()).unwrap();
    assert_eq!(end(&mut client).unwrap(), Some(FLOW_CONTROL_ERROR));
}

#[test]
fn a_client_that_lets_no_answer_in_is_cut() {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let edge = Http2Edge::start("limits: { send_idle: 1s }, keepalive: { idle_timeout: 1s }", 300_000);
    let mut client = Client::tls(edge.port, &[(INITIAL_WINDOW_SIZE, 0)]);
    client.send(&open(1)).unwrap();
    let reset = client.wait_for(|frame| frame.stream == 1 && frame.kind == RST_STREAM);
    assert!(reset.is_ok(), "{reset:?}");
    assert!(end(&mut client).is_ok(), "the connection is still open");
}

#[test]
fn a_client_that_reads_nothing_at_all_is_cut() {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let edge = Http2Edge::start("limits: { send_idle: 1s }, keepalive: { idle_timeout: 1s }", 300_000);
    let mut client = Client::tls(edge.port, &[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]);
    client.send(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0, 0, 0])).unwrap();
    // More than the sockets hold.
    client.send(&(0..100).flat_map(|n| open(2 * n + 1)).collect::<Vec<_>>()).unwrap();
    let sample = "vestibule_open_connections{listener=\"web\"}";
    edge.origin.wait_for("a request", |all| !all.is_empty());
    let begun = Instant::now();
    while metric(edge.admin, sample) > 0 {
        assert!(begun.elapsed() < PATIENCE, "it is still open");
        thread::sleep(Duration::from_millis(50));
    }
    drop(client);
}

#[test]
fn a_connection_without_a_stream_is_closed_at_the_listeners_idle_timeout() {
    let edge = Http2Edge::start("keepalive: { idle_timeout: 1s }", 10);
    // The second one begins a header block and falls silent; the third one says that it is there and asks for nothing.
    for bytes in [vec![], frame(HEADERS, END_STREAM, 1, &get()), pings(0)] {
        let mut client = Client::tls(edge.port, &[]);
        client.send(&bytes).unwrap();
        assert!(end(&mut client).is_ok(), "after {} bytes it is still open", bytes.len());
    }
}

#[test]
fn requests_that_are_not_legal_are_counted() {
    let edge = Http2Edge::start("", 10);
    let neighbour = Http2Client::tls(edge.port, "a.test");
    // A Host that is not the `:authority`.
    let block = [&get(), &b"\x00\x04host\x06b.test"[..]].concat();
    let two_faced = |stream: u32| frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
    let mut client = Client::tls(edge.port, &[]);
    for n in 0..TIMES {
        if client.send(&two_faced(2 * n + 1)).is_err() {
            break;
        }
    }
    assert!(end(&mut client).unwrap().is_none_or(|code| code == CALM));
    // Some are reset by the crate, and count as such.
    let reasons = ["http2_malformed", "http2_resets"].map(|reason| {
        metric(
            edge.admin,
            &format!("vestibule_listener_over_limit_total{{listener=\"web\",reason=\"{reason}\"}}"),
        )
    });
    assert_eq!(reasons.iter().sum::<u64>(), 1);
    assert!(edge.origin.requests().is_empty() && is_served(&neighbour));
}
