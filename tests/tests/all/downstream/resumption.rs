//! A session that was made under one policy is never resumed under another (as CVE-2025-23419 would have it): clients of
//! OpenSSL's own, TLS 1.2 and 1.3, session ids and tickets, each policy after each other, with an SNI and without.

use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use openssl::ssl::{
    SslConnector, SslFiletype, SslMethod, SslOptions, SslSession, SslSessionCacheMode, SslVerifyMode,
    SslVersion,
};
use vestibule_tests::PATIENCE;
use vestibule_tests::certs::Pair;
use vestibule_tests::client::Client;

use super::House;

/// How a client keeps sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// TLS 1.2, by their ids.
    Ids,
    /// TLS 1.2, as tickets.
    Tickets,
    /// TLS 1.3.
    Modern,
}

/// What came of a handshake and one request.
struct Came {
    /// Nothing where the client was not let in.
    client: Option<String>,
    resumed: bool,
    session: Option<SslSession>,
    /// Held, since OpenSSL takes back the session of a connection that was not shut down in order.
    open: Option<Client>,
}

fn shake(
    house: &House,
    kind: Kind,
    sni: Option<&str>,
    shown: Option<&Pair>,
    session: Option<&SslSession>,
) -> Came {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    builder.set_verify(SslVerifyMode::NONE);
    let version = if kind == Kind::Modern { SslVersion::TLS1_3 } else { SslVersion::TLS1_2 };
    builder.set_min_proto_version(Some(version)).unwrap();
    builder.set_max_proto_version(Some(version)).unwrap();
    if kind == Kind::Ids {
        builder.set_options(SslOptions::NO_TICKET);
    }
    if let Some(pair) = shown {
        builder.set_certificate_chain_file(&pair.cert).unwrap();
        builder.set_private_key_file(&pair.key, SslFiletype::PEM).unwrap();
    }
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = kept.clone();
    builder.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
    builder.set_new_session_callback(move |_, session| keep.lock().unwrap().push(session));
    let mut configuration = builder.build().configure().unwrap();
    configuration.set_use_server_name_indication(sni.is_some());
    configuration.set_verify_hostname(false);
    let mut ssl = configuration.into_ssl(sni.unwrap_or_default()).unwrap();
    if let Some(session) = session {
        // SAFETY: the session is of this very process, and of a context with the same settings.
        unsafe { ssl.set_session(session).unwrap() };
    }
    let stream = TcpStream::connect(("127.0.0.1", house.port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut came = Came { client: None, resumed: false, session: None, open: None };
    let Ok(stream) = ssl.connect(stream) else { return came };
    came.resumed = stream.ssl().session_reused();
    let own = stream.ssl().session().map(ToOwned::to_owned);
    let mut client = Client::over(stream);
    let host = sni.unwrap_or("127.0.0.1");
    if client.try_send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).is_ok()
        && let Ok(answer) = client.try_response()
    {
        assert_eq!(answer.status, 200);
        came.client = Some(answer.header("x-client").unwrap_or_default().to_owned());
    }
    // Tickets of TLS 1.3 come after the handshake, before the answer. Where there are none, what is no use is offered.
    came.session = kept.lock().unwrap().drain(..).next().or(own);
    came.open = Some(client);
    came
}

#[test]
fn no_session_crosses_from_one_policy_to_another() {
    let house = House::build();
    let (alice, stranger) = (Some(&house.alice), Some(&house.stranger));
    // By which name, what is shown the first time, and who the client then is; whoever shows nothing the second time
    // passes as nobody, or not at all.
    let names = [
        (None, None, "", Some("")),
        (Some("open.test"), None, "", Some("")),
        (Some("open.below.test"), None, "", Some("")),
        (Some("optional.test"), alice, "CN=alice", Some("")),
        (Some("required.test"), alice, "CN=alice", None),
        (Some("same.test"), alice, "CN=alice", None),
        (Some("other.test"), stranger, "CN=stranger", None),
    ];
    let mut resumed = 0;
    for kind in [Kind::Ids, Kind::Tickets, Kind::Modern] {
        for (from, shown, first, _) in names {
            let made = shake(&house, kind, from, shown, None);
            assert_eq!(made.client.as_deref(), Some(first), "{kind:?} {from:?}");
            // Held until all have been tried, as `made` is.
            let mut held = Vec::new();
            for (to, _, _, second) in names {
                let came = shake(&house, kind, to, None, made.session.as_ref());
                assert_eq!(came.client.as_deref(), second, "{kind:?} {from:?} then {to:?}");
                assert_eq!(came.resumed, from == to && first.is_empty(), "{kind:?} {from:?} then {to:?}");
                resumed += usize::from(came.resumed);
                held.push(came);
            }
        }
    }
    assert_eq!(resumed, 9, "within a name that asks for nothing, each kind of session is resumed");
}

#[test]
fn a_certificate_is_shown_anew_by_whoever_brings_a_session_along() {
    let house = House::build();
    for kind in [Kind::Ids, Kind::Tickets, Kind::Modern] {
        let required = shake(&house, kind, Some("required.test"), Some(&house.alice), None);
        let open = shake(&house, kind, Some("open.test"), None, None);
        for session in [&required.session, &open.session] {
            let came = shake(&house, kind, Some("required.test"), Some(&house.alice), session.as_ref());
            assert_eq!((came.client.as_deref(), came.resumed), (Some("CN=alice"), false), "{kind:?}");
        }
    }
}
