//! The names of all metrics, each with its help text. They stand in dashboards and alerts, so they do not change.

/// A metric's name and its help text.
pub type Metric = (&'static str, &'static str);

/// Labels `listener`, `route`, `code`.
pub const REQUESTS: Metric =
    ("vestibule_requests_total", "Requests that are over, by the status that the client got.");
/// Label `route`.
pub const REQUEST_DURATION: Metric = (
    "vestibule_request_duration_seconds",
    "Time from a request's head to the end of its answer, or of its tunnel.",
);
/// Labels `upstream`, `cause`.
pub const UPSTREAM_ATTEMPTS: Metric = (
    "vestibule_upstream_attempts_total",
    "Attempts at an upstream that are over, by the code of why they failed; `none` where they did not.",
);
/// Labels `upstream`, `resumed`.
pub const TLS_HANDSHAKES: Metric = (
    "vestibule_tls_handshakes_total",
    "TLS handshakes with an upstream that succeeded, by whether they resumed a session.",
);
/// Label `listener`.
pub const OPEN_CONNECTIONS: Metric =
    ("vestibule_open_connections", "Connections from clients that are open now.");
/// Label `version`; always 1.
pub const BUILD_INFO: Metric = ("vestibule_build_info", "The version of the gateway that runs.");
