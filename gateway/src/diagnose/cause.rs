//! The table: why an attempt failed, under which code it is logged, and what mends it.

use std::fmt;

/// Defines `Cause` from its rows, so that no cause can be without one.
macro_rules! causes {
    ($($(#[$doc:meta])+ $name:ident: $code:literal, $what:literal, $remedy:literal;)+) => {
        /// Why an attempt at an upstream failed, or a client could not be served. The code is stable: it stands in access logs and metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Cause {
            $($(#[$doc])+ $name,)+
        }

        impl Cause {
            /// Every cause, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            const fn row(self) -> (&'static str, &'static str, &'static str) {
                match self {
                    $(Self::$name => ($code, $what, $remedy),)+
                }
            }
        }
    };
}

causes! {
    /// The endpoint's name has no address.
    DnsNotFound: "dns_not_found",
        "the endpoint's name has no address",
        "correct the name under `endpoints`, or the resolver of this machine";
    /// Nobody listens at the address.
    ConnectRefused: "connect_refused",
        "nobody listens at the address",
        "start the upstream, or correct the port under `endpoints`";
    /// The address did not answer in time.
    ConnectTimeout: "connect_timeout",
        "the address did not answer in time",
        "check the address under `endpoints` and the firewalls between, or raise `connect_timeout`";
    /// The address could not be reached.
    ConnectFailed: "connect_failed",
        "the address could not be reached",
        "check the address under `endpoints`";
    /// The upstream ended the handshake and no SNI had been sent.
    TlsSniMissing: "tls_sni_missing",
        "the upstream ended the handshake, and no SNI was sent",
        "drop `sni: none` from the `tls` block, or write the name that the upstream serves: `tls: { sni: NAME }`";
    /// The upstream does not know the SNI (alert 112).
    TlsSniUnrecognized: "tls_sni_unrecognized",
        "the upstream serves no such name as the SNI",
        "write the name that the upstream serves: `tls: { sni: NAME }`";
    /// The certificate is for other names.
    TlsNameMismatch: "tls_name_mismatch",
        "the certificate is for other names than the one verified",
        "write a name that the certificate has: `tls: { verify: { name: NAME } }`";
    /// The chain does not lead to a trusted CA.
    TlsUnknownIssuer: "tls_unknown_issuer",
        "the certificate chain does not lead to a trusted CA",
        "name the file of the CA that signed it: `tls: { verify: { ca: FILE } }`";
    /// The certificate is signed by itself.
    TlsSelfSigned: "tls_self_signed",
        "the certificate is signed by itself",
        "trust just this certificate: save it and write `tls: { verify: { ca: FILE } }`";
    /// The certificate's time is over.
    TlsExpired: "tls_expired",
        "the upstream's certificate has expired",
        "renew the upstream's certificate";
    /// The certificate's time has not begun.
    TlsNotYetValid: "tls_not_yet_valid",
        "the upstream's certificate is not valid yet",
        "check the clocks of both machines, or the upstream's certificate";
    /// The certificate is revoked.
    TlsRevoked: "tls_revoked",
        "the upstream's certificate is revoked",
        "renew the upstream's certificate: who holds the old one's key can pose as it";
    /// A revocation list is missing or out of date.
    TlsCrlUnusable: "tls_crl_unusable",
        "a revocation list is missing or out of date",
        "put the current list of each CA of the chain into the file of `tls: { verify: { crl: FILE } }`";
    /// The public key is none of the pinned ones.
    TlsPinMismatch: "tls_pin_mismatch",
        "the certificate's public key is none of the pinned ones",
        "if the upstream changed its key, write the new pin: `tls: { verify: { pins: [PIN] } }`";
    /// More CAs than `depth` allows.
    TlsChainTooLong: "tls_chain_too_long",
        "more CAs stand between the certificate and a trusted one than `depth` allows",
        "raise or drop `depth`: `tls: { verify: { depth: NUMBER } }`";
    /// The certificate cannot be accepted for another reason.
    TlsCertificateInvalid: "tls_certificate_invalid",
        "the upstream's certificate cannot be accepted",
        "renew the upstream's certificate";
    /// The upstream wants a client certificate and none was shown.
    TlsClientCertificateRequired: "tls_client_certificate_required",
        "the upstream wants a client certificate, and none was shown",
        "show one: `tls: { client_certificate: { cert: FILE, key: FILE } }`";
    /// The upstream does not accept the client certificate.
    TlsClientCertificateRejected: "tls_client_certificate_rejected",
        "the upstream does not accept the client certificate",
        "show one that a CA of the upstream's signed, with its chain: `tls: { client_certificate: … }`";
    /// No TLS version in common.
    TlsProtocolVersion: "tls_protocol_version",
        "the upstream speaks none of the TLS versions offered",
        "widen `min_version` and `max_version` in the `tls` block, or enable TLS 1.2 or 1.3 at the upstream";
    /// No cipher or curve in common.
    TlsNoSharedCipher: "tls_no_shared_cipher",
        "the upstream accepts none of the ciphers and curves offered",
        "drop `ciphers` and `curves` from the `tls` block, or name one that the upstream accepts";
    /// The upstream does not speak TLS on this port.
    TlsPlaintextPeer: "tls_plaintext_peer",
        "the upstream does not speak TLS on this port",
        "correct the port under `endpoints`, or drop the upstream's `tls` block";
    /// The port speaks TLS, and plain HTTP was sent.
    PlainToTlsPort: "plain_to_tls_port",
        "the upstream speaks TLS on this port, and plain HTTP was sent",
        "give the upstream a `tls` block; `tls: {}` is enough where its certificate is publicly trusted";
    /// The handshake took too long.
    TlsHandshakeTimeout: "tls_handshake_timeout",
        "the TLS handshake took too long",
        "check the upstream, or raise `connect_timeout`";
    /// The upstream closed the connection during the handshake.
    TlsPeerReset: "tls_peer_reset",
        "the upstream closed the connection during the TLS handshake",
        "check that the upstream serves the SNI that was sent: `tls: { sni: NAME }`";
    /// The handshake failed in another way.
    TlsHandshakeFailed: "tls_handshake_failed",
        "the TLS handshake failed",
        "see the detail in this line";
    /// The upstream does not speak the HTTP version that the file names.
    AlpnMismatch: "alpn_mismatch",
        "the upstream does not speak the protocol that the file names",
        "write the one that it speaks: `protocol: http/1.1`, `h2`, `h2c` or `auto`";
    /// A pooled connection had been closed by the upstream.
    UpstreamClosedIdle: "upstream_closed_idle",
        "the upstream had closed the idle connection that was reused",
        "keep connections for less time than the upstream does: `keepalive: { idle_timeout: … }`";
    /// The upstream closed the connection before it had answered.
    UpstreamReset: "upstream_reset",
        "the upstream closed the connection before it had answered",
        "see the upstream's own log; a port that speaks TLS wants a `tls` block";
    /// The upstream closed the connection without taking the request.
    UpstreamGoingAway: "upstream_going_away",
        "the upstream closed the connection without taking the request",
        "see the upstream's own log";
    /// The upstream did not answer in time.
    UpstreamTimeout: "upstream_timeout",
        "the upstream did not answer in time",
        "see the upstream's own log, or raise the route's `timeouts`";
    /// What came back was not a legal HTTP response.
    UpstreamInvalidResponse: "upstream_invalid_response",
        "what came back is not a legal HTTP response",
        "check the port under `endpoints`; a port that speaks TLS wants a `tls` block";
    /// The upstream wants another version of HTTP (426).
    Upstream426: "upstream_426",
        "the upstream wants another protocol than HTTP/1.1 (status 426)",
        "write the one that it wants: `protocol: h2`";
    /// The upstream does not serve this Host on this connection (421).
    Upstream421: "upstream_421",
        "the upstream does not serve this Host on this connection (status 421)",
        "send the Host that the upstream serves: `host: NAME`";
    /// The upstream wants the Host to be the SNI.
    HostSniMismatch: "host_sni_mismatch",
        "the Host that was sent is not the SNI, and the upstream wants them to be the same",
        "send one name as both: drop `sni`, whose default is the Host, or write `host: NAME`";
    /// The upstream answered with a status that counts as a failure here.
    UpstreamStatus: "upstream_status",
        "the upstream answered with a status that `retry_on` names",
        "see the upstream's own log";
    /// The client went away first.
    ClientClosed: "client_closed",
        "the client went away before the answer was complete",
        "";
    /// The connection was made on terms that hold no more.
    ClientTermsChanged: "client_terms_changed",
        "the listener asks its clients for another certificate since this connection was made",
        "";
    /// The Host is a name of another client certificate policy than the connection's.
    MisdirectedRequest: "misdirected_request",
        "the connection was made for a name of another client certificate policy than the Host's",
        "let the client connect with the Host as its SNI, or ask the same of both names: `tls: { by_sni: … }`";
    /// The client sends its request too slowly.
    ClientTooSlow: "client_too_slow",
        "the client took too long to send its request",
        "if its network is that slow, raise `head_timeout`, or lower `body_rate`, of the listener: `limits: { … }`";
    /// A head that is too large.
    HeadTooLarge: "head_too_large",
        "the request has a larger head, or more fields, than the listener allows",
        "if it is to pass, raise `head_size` or `headers` of the listener: `limits: { … }`";
    /// A target that is too long.
    UrlTooLong: "url_too_long",
        "the request's URL is longer than the listener allows",
        "if it is to pass, raise `url` of the listener: `limits: { … }`";
    /// A request that is not legal HTTP.
    RequestInvalid: "request_invalid",
        "the request is not legal HTTP",
        "";
    /// A plugin wants to know who the client is, and was not shown.
    NotAuthenticated: "not_authenticated",
        "the client has not shown who it is",
        "";
    /// A plugin does not let the client pass.
    NotAllowed: "not_allowed",
        "a plugin of the route does not let the client pass",
        "";
    /// The client asks more often than a plugin lets it.
    RateLimited: "rate_limited",
        "the client asks more often than a plugin of the route lets it",
        "";
    /// The request's body is larger than a plugin lets it be.
    BodyTooLarge: "body_too_large",
        "the request's body is larger than a plugin of the route lets it be",
        "";
    /// Whoever a plugin asks did not answer.
    PluginUnavailable: "plugin_unavailable",
        "somebody whom a plugin of the route asks did not answer",
        "see the detail in the log";
    /// No route matched.
    NoRoute: "no_route",
        "no route matches the request",
        "add a route, or widen one's `match`";
    /// The Host is of a name that the listener passes through.
    HostPassedThrough: "host_passed_through",
        "the Host is a name that the listener passes through, and it came by a connection that the gateway ended",
        "let clients ask for that name by SNI, or take it out of `tcp: { by_sni }`";
    /// A client asked for a name that nothing leads on.
    SniUnmatched: "sni_unmatched",
        "no name of `by_sni` is the one that the client asked for",
        "add the name to `tcp: { by_sni }`, or write a `tcp: { upstream }` for all others";
    /// The first bytes are no ClientHello.
    ClientHelloInvalid: "client_hello_invalid",
        "what the client sent first is no TLS ClientHello that could be served",
        "see the detail in this line; write a `tcp: { upstream }` for clients that speak another protocol than TLS";
    /// There is no PROXY header.
    ProxyHeaderMissing: "proxy_header_missing",
        "the connection did not begin with a PROXY header",
        "let what stands in front send one, or name its addresses: `proxy_protocol: { from: [CIDR] }`";
    /// There is a PROXY header that is not legal.
    ProxyHeaderInvalid: "proxy_header_invalid",
        "the PROXY header of the connection is not legal",
        "see the detail in this line, and what stands in front";
    /// A PROXY header that nobody is believed.
    ProxyHeaderUntrusted: "proxy_header_untrusted",
        "a PROXY header came from an address whose word is not taken",
        "if a proxy of yours has the address, add it: `proxy_protocol: { from: [CIDR] }`";
    /// The client did not say in time what had to come first.
    ClientSilent: "client_silent",
        "the PROXY header or the ClientHello did not come within 10s",
        "where the upstream speaks first, leave `by_sni` and `proxy_protocol` out";
    /// No byte passed either way for too long.
    ConnectionIdle: "connection_idle",
        "no byte passed either way for as long as `idle_timeout` allows",
        "raise `tcp: { idle_timeout }`, or let either end send something from time to time";
    /// The gateway itself failed.
    Internal: "internal",
        "the gateway failed",
        "report this line";
}

impl Cause {
    /// The code under which it is logged.
    pub fn code(self) -> &'static str {
        self.row().0
    }

    /// What happened, in a few words.
    pub fn what(self) -> &'static str {
        self.row().1
    }

    /// Which key mends it; empty where no key can.
    pub fn remedy(self) -> &'static str {
        self.row().2
    }

    /// The status that the client gets, if nothing better came.
    pub fn status(self) -> u16 {
        match self {
            Cause::ConnectTimeout | Cause::TlsHandshakeTimeout | Cause::UpstreamTimeout => 504,
            Cause::RequestInvalid => 400,
            Cause::NotAuthenticated => 401,
            Cause::NotAllowed => 403,
            Cause::NoRoute => 404,
            Cause::BodyTooLarge => 413,
            Cause::RateLimited => 429,
            Cause::PluginUnavailable => 503,
            Cause::ClientTooSlow => 408,
            Cause::UrlTooLong => 414,
            Cause::HeadTooLarge => 431,
            // RFC 9110 section 15.5.20: the client may ask again by another connection.
            Cause::ClientTermsChanged | Cause::MisdirectedRequest | Cause::HostPassedThrough => 421,
            Cause::Internal => 500,
            _ => 502,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}
