//! What a change of the policies, or of the files that they name, means for connections that are open.

use vestibule_tests::client::Client;

use super::{House, yaml};

fn asked(client: &mut Client, host: &str, path: &str) -> u16 {
    client.get(host, path).status
}

#[test]
fn who_is_revoked_is_let_in_no_more_and_others_notice_nothing() {
    let house = House::build();
    let bob = house.certs.client(&house.ca, "bob");
    let connect = |sni: &str, pair| house.connect(Some(sni), pair).unwrap();
    let mut revoking = connect("revoking.test", Some(&house.alice));
    let mut required = connect("required.test", Some(&house.alice));
    let mut open = connect("open.test", None);
    let all = [(&mut revoking, "revoking.test"), (&mut required, "required.test"), (&mut open, "open.test")];
    for (client, host) in all {
        assert_eq!(asked(client, host, "/before"), 200);
    }

    std::fs::copy(house.certs.crl(&house.ca, &[&house.alice]), &house.crl).unwrap();
    house.gateway.wait_for("reload by files: applied: ");
    assert_eq!(asked(&mut revoking, "revoking.test", "/after"), 421);
    assert_eq!(house.gateway.log_of("/after")["cause"], "client_terms_changed");
    for _ in 0..3 {
        assert_eq!(asked(&mut required, "required.test", "/"), 200, "its own list is none");
        assert_eq!(asked(&mut open, "open.test", "/"), 200);
    }
    let passes = |pair| house.ask(Some("revoking.test"), Some(pair), "revoking.test").is_some();
    assert_eq!([passes(&house.alice), passes(&bob)], [false, true]);
}

#[test]
fn a_list_whose_time_is_over_lets_nobody_in() {
    let house = House::build();
    std::fs::copy(house.certs.crl_until(&house.ca, &[], 2025), &house.crl).unwrap();
    house.gateway.wait_for("reload by files: applied: ");
    assert!(house.ask(Some("revoking.test"), Some(&house.alice), "revoking.test").is_none());
    assert!(house.ask(Some("required.test"), Some(&house.alice), "required.test").is_some());
}

#[test]
fn a_name_that_gets_a_policy_is_reached_by_no_older_connection() {
    let house = House::build();
    let mut open = house.connect(Some("open.test"), None).unwrap();
    assert_eq!(asked(&mut open, "open.test", "/"), 200);
    assert_eq!(asked(&mut open, "new.test", "/"), 200);
    let file = yaml(house.port, house.admin, &house.server, &house.ca, &house.other_ca, &house.crl);
    let told = house.gateway.reload(&file.replace("        same.test:", "        new.test:"));
    assert!(told.contains(": applied: "), "{told}");
    assert_eq!(asked(&mut open, "new.test", "/misdirected"), 421);
    assert_eq!(house.gateway.log_of("/misdirected")["cause"], "misdirected_request");
    assert_eq!(asked(&mut open, "open.test", "/"), 200, "the connection goes on");
    assert_eq!(asked(&mut open, "same.test", "/"), 200, "which has no policy of its own any more");
}

#[test]
fn a_listener_that_gets_a_name_and_a_policy_at_once_is_no_way_around_it() {
    let house = House::build();
    let mut open = house.connect(Some("open.test"), None).unwrap();
    assert_eq!(asked(&mut open, "new.test", "/"), 200);
    let file = yaml(house.port, house.admin, &house.server, &house.ca, &house.other_ca, &house.crl);
    let renamed = file.replace("  web:\n", "  front:\n").replace("        same.test:", "        new.test:");
    let told = house.gateway.reload(&renamed);
    assert!(told.contains(": applied: "), "{told}");
    assert_eq!(asked(&mut open, "new.test", "/misdirected"), 421);
}
