//! Endpoints that are names: resolved before and beside requests, never on their way.

use serde_json::json;
use vestibule_tests::origin::Origin;

use crate::Edge;

#[test]
fn a_name_is_resolved_by_the_machines_hosts_file_and_one_that_is_not_known_keeps_nobody_from_starting() {
    let origin = Origin::echo();
    let edge = Edge::start(&format!(
        r#"
upstreams:
  named: {{ endpoints: ["localhost:{}"], host: endpoint }}
  nowhere: {{ endpoints: ["no-such-name.invalid:80"] }}
routes:
  - {{ match: {{ paths: [/named] }}, upstream: named }}
  - {{ match: {{ paths: [/nowhere] }}, upstream: nowhere }}
"#,
        origin.port
    ));
    assert_eq!(edge.get("a.test", "/named").json()["headers"]["host"], format!("localhost:{}", origin.port));
    assert_eq!(edge.outcome("a.test", "/nowhere"), (502, json!("dns_not_found")));
}
