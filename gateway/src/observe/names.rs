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
/// Label `listener`.
pub const CONNECTIONS: Metric = ("vestibule_connections_total", "Connections that clients have made.");
/// Labels `listener`, `cause`.
pub const REFUSED_CONNECTIONS: Metric = (
    "vestibule_refused_connections_total",
    "Connections that were closed before anybody had served them, by the code of why.",
);
/// Label `listener`.
pub const TCP_RECEIVED: Metric =
    ("vestibule_tcp_received_bytes_total", "Bytes of clients that were read to be passed through.");
/// Label `listener`.
pub const TCP_SENT: Metric =
    ("vestibule_tcp_sent_bytes_total", "Bytes of upstreams that were read to be passed through to clients.");
/// Labels `listener`, `resumed`.
pub const LISTENER_HANDSHAKES: Metric = (
    "vestibule_listener_tls_handshakes_total",
    "TLS handshakes with clients that succeeded, by whether they resumed a session.",
);
/// Labels `listener`, `reason`.
pub const LISTENER_HANDSHAKE_FAILURES: Metric = (
    "vestibule_listener_tls_handshake_failures_total",
    "TLS handshakes with clients that failed, by the reason.",
);
/// Labels `listener`, `reason`.
pub const LISTENER_OVER_LIMIT: Metric = (
    "vestibule_listener_over_limit_total",
    "Connections of clients that were refused or cut since they went over a limit, by the limit.",
);
/// Labels `trigger`, `result`.
pub const RELOADS: Metric = (
    "vestibule_config_reloads_total",
    "Changes of the configuration that were asked for, the first load included, by what asked and what came of it.",
);
/// No label.
pub const RELOAD_DURATION: Metric = (
    "vestibule_config_reload_duration_seconds",
    "Time from a change being asked for to its being in force or refused.",
);
/// No label; 0 or 1.
pub const LAST_RELOAD_SUCCESSFUL: Metric = (
    "vestibule_config_last_reload_successful",
    "Whether the last reload has put in force what the files said: 1 or 0.",
);
/// No label.
pub const LAST_RELOAD_SUCCESS: Metric = (
    "vestibule_config_last_reload_success_timestamp_seconds",
    "When a reload last has put in force what the files said, in seconds since 1970.",
);
/// Labels `side`, `result`.
pub const STAGE_REQUESTS: Metric = (
    "vestibule_stage_requests_total",
    "Requests during staged reloads, by the side that answered and whether it failed.",
);
/// No label; 0 or 1.
pub const STAGE_ACTIVE: Metric = ("vestibule_stage_active", "Whether a candidate is on trial: 1 or 0.");
/// Label `config`; always 1.
pub const CONFIG_INFO: Metric = ("vestibule_config_info", "The hash of the configuration that runs.");
/// Labels `use`, `owner`, `serial`, `subject`.
pub const CERTIFICATE_NOT_AFTER: Metric = (
    "vestibule_certificate_not_after_timestamp_seconds",
    "When a certificate that the configuration uses ends, in seconds since 1970.",
);
/// Label `version`; always 1.
pub const BUILD_INFO: Metric = ("vestibule_build_info", "The version of the gateway that runs.");
