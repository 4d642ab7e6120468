//! What Envoy is told, for one description: JSON, which it reads as it reads YAML. Nothing here starts anything.

use std::path::Path;

use serde_json::{Value, json};

use super::super::Clients;
use super::{ServerTls, Version};

pub(super) fn config([port, plain_port, h2c_port]: [u16; 3], tls: &ServerTls) -> String {
    let mut encrypted = json!({
        "transport_socket": { "name": "tls", "typed_config": transport(tls) },
        "filters": http("AUTO"),
    });
    let mut inspectors = json!([]);
    if tls.strict_sni {
        let inspector = typed("filters.listener.tls_inspector.v3.TlsInspector", json!({}));
        inspectors = json!([{ "name": "hello", "typed_config": inspector }]);
        encrypted["filter_chain_match"] = json!({ "server_names": [tls.name] });
    }
    let listeners = json!([
        listener(port, inspectors, encrypted),
        listener(plain_port, json!([]), json!({ "filters": http("HTTP1") })),
        listener(h2c_port, json!([]), json!({ "filters": http("HTTP2") })),
    ]);
    json!({ "static_resources": { "listeners": listeners } }).to_string()
}

fn listener(port: u16, inspectors: Value, chain: Value) -> Value {
    json!({
        "name": port.to_string(),
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
        "listener_filters": inspectors,
        "filter_chains": [chain],
    })
}

fn transport(tls: &ServerTls) -> Value {
    let version = if tls.version == Version::Tls12 { "TLSv1_2" } else { "TLSv1_3" };
    let file = |path: &Path| json!({ "filename": path.display().to_string() });
    let pair = tls.certificate;
    let mut common = json!({
        "tls_params": { "tls_minimum_protocol_version": version, "tls_maximum_protocol_version": version },
        "tls_certificates": [{ "certificate_chain": file(&pair.cert), "private_key": file(&pair.key) }],
    });
    if let Some(cipher) = tls.cipher {
        common["tls_params"]["cipher_suites"] = json!([cipher]);
    }
    if let Some(curve) = tls.curve {
        common["tls_params"]["ecdh_curves"] = json!([curve]);
    }
    if tls.h2 {
        common["alpn_protocols"] = json!(["h2", "http/1.1"]);
    }
    if let Clients::Optional(ca) | Clients::Required(ca) = tls.clients {
        common["validation_context"] = json!({ "trusted_ca": file(ca) });
    }
    let required = matches!(tls.clients, Clients::Required(_));
    let context = json!({ "common_tls_context": common, "require_client_certificate": required });
    typed("transport_sockets.tls.v3.DownstreamTlsContext", context)
}

fn http(codec: &str) -> Value {
    let answer = |path: Value, status: u16| {
        let answer = json!({ "status": status, "body": { "inline_string": "told" } });
        json!({ "match": path, "direct_response": answer })
    };
    let routes = json!([
        answer(json!({ "path": "/421" }), 421),
        answer(json!({ "path": "/426" }), 426),
        answer(json!({ "prefix": "/" }), 200),
    ]);
    let router = typed("filters.http.router.v3.Router", json!({}));
    let manager = json!({
        "stat_prefix": "ingress",
        "codec_type": codec,
        "route_config": { "virtual_hosts": [{ "name": "app", "domains": ["*"], "routes": routes }] },
        "http_filters": [{ "name": "router", "typed_config": router }],
    });
    let kind = "filters.network.http_connection_manager.v3.HttpConnectionManager";
    json!([{ "name": "http", "typed_config": typed(kind, manager) }])
}

fn typed(kind: &str, mut value: Value) -> Value {
    value["@type"] = json!(format!("type.googleapis.com/envoy.extensions.{kind}"));
    value
}
