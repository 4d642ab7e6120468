//! Whose turn it is: smooth weighted round robin over a schedule made at load, without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::endpoint::{Address, Endpoint};

/// The endpoints of an upstream and whose turn it is.
#[derive(Debug)]
pub struct Balance {
    endpoints: Vec<Arc<Endpoint>>,
    /// Endpoint indexes, each as often as its weight says and spread evenly.
    schedule: Vec<u16>,
    turn: AtomicUsize,
}

/// What was picked for an attempt.
#[derive(Clone, Debug)]
pub struct Pick {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// One of its addresses.
    pub address: Address,
}

/// The addresses that a request has tried, so that each try goes to another one.
pub type Tried = Vec<Address>;

impl Balance {
    /// Endpoints of which there is at least one, each of a weight from 1.
    pub fn new(endpoints: Vec<Arc<Endpoint>>) -> Self {
        let schedule = schedule(&endpoints.iter().map(|endpoint| endpoint.weight).collect::<Vec<_>>());
        Self { endpoints, schedule, turn: AtomicUsize::new(0) }
    }

    /// All endpoints, in the order of the file.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Each endpoint once, in the order in which one request tries them that comes first of all.
    pub fn order(&self) -> Vec<&Arc<Endpoint>> {
        let mut order: Vec<&Arc<Endpoint>> = Vec::new();
        for endpoint in self.from(0) {
            if !order.iter().any(|known| Arc::ptr_eq(known, endpoint)) {
                order.push(endpoint);
            }
        }
        order
    }

    /// The endpoint whose turn it is, passing over tried addresses while there is another. `None` where no endpoint
    /// has an address.
    pub fn pick(&self, tried: &Tried) -> Option<Pick> {
        // A second try takes no turn: in step with the first ones, it would give each of them the same endpoint.
        let turn = match tried.is_empty() {
            true => self.turn.fetch_add(1, Ordering::Relaxed),
            false => self.turn.load(Ordering::Relaxed),
        };
        let mut fallback = None;
        for endpoint in self.from(turn) {
            let addresses = endpoint.addresses();
            // A name with several addresses spreads over them as the turns go round.
            let rounds = turn / self.schedule.len();
            for offset in 0..addresses.len() {
                let address = &addresses[(rounds + offset) % addresses.len()];
                if !tried.contains(address) {
                    return Some(Pick { endpoint: endpoint.clone(), address: address.clone() });
                }
                fallback.get_or_insert_with(|| Pick { endpoint: endpoint.clone(), address: address.clone() });
            }
        }
        fallback
    }

    /// One round of the schedule from this turn on.
    fn from(&self, turn: usize) -> impl Iterator<Item = &Arc<Endpoint>> {
        let slots = self.schedule.len();
        (0..slots).map(move |step| &self.endpoints[usize::from(self.schedule[(turn + step) % slots])])
    }
}

/// Each index as often as its weight (divided by the greatest common divisor), spread as evenly as can be: in every
/// step each gains its weight, and the one with the most pays the total.
fn schedule(weights: &[u32]) -> Vec<u16> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let weights: Vec<i64> = weights.iter().map(|weight| i64::from(weight / divisor)).collect();
    let total: i64 = weights.iter().sum();
    let mut credit = vec![0_i64; weights.len()];
    let mut schedule = Vec::new();
    for _ in 0..total {
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            *credit += weight;
        }
        let richest = (0..credit.len()).rev().max_by_key(|&index| credit[index]).unwrap_or(0);
        credit[richest] -= total;
        schedule.push(richest as u16);
    }
    schedule
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_spread_evenly() {
        assert_eq!(schedule(&[1, 1]), [0, 1]);
        assert_eq!(schedule(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(schedule(&[20, 10]), [0, 1, 0]);
        assert_eq!(schedule(&[300]), [0]);
    }

    #[test]
    fn each_try_goes_to_another_endpoint_while_there_is_one() {
        let balance = balance(&["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
        let mut tried = Tried::new();
        for _ in 0..3 {
            let pick = balance.pick(&tried).unwrap();
            assert!(!tried.contains(&pick.address));
            tried.push(pick.address);
        }
        assert!(balance.pick(&tried).is_some(), "when all were tried, any may be tried again");
    }

    #[test]
    fn the_order_is_that_of_the_tries_of_one_request() {
        let weighted = |address: &str, weight| {
            let parsed = Address::tcp(address.parse().unwrap());
            Arc::new(Endpoint::new(address.into(), address.into(), weight, None, vec![parsed]))
        };
        let listed = [("127.0.0.1:1", 1), ("127.0.0.1:2", 5), ("127.0.0.1:3", 2)];
        let balance =
            Balance::new(listed.iter().map(|(address, weight)| weighted(address, *weight)).collect());
        let order: Vec<String> = balance.order().iter().map(|endpoint| endpoint.text.clone()).collect();
        let mut tried = Tried::new();
        for _ in 0..listed.len() {
            tried.push(balance.pick(&tried).unwrap().address);
        }
        assert_eq!(order, tried.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(order, ["127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:1"]);
    }

    #[test]
    fn second_tries_leave_the_turns_of_first_ones_alone() {
        let balance = balance(&["127.0.0.1:1", "127.0.0.1:2"]);
        let firsts: Vec<String> = (0..4)
            .map(|_| {
                let first = balance.pick(&Tried::new()).unwrap().address;
                let second = balance.pick(&vec![first.clone()]).unwrap().address;
                assert_ne!(first, second);
                first.to_string()
            })
            .collect();
        assert_eq!(firsts, ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:1", "127.0.0.1:2"]);
    }

    #[test]
    fn turns_go_round() {
        let balance = balance(&["127.0.0.1:1", "127.0.0.1:2"]);
        let ports: Vec<String> =
            (0..4).map(|_| balance.pick(&Tried::new()).unwrap().address.to_string()).collect();
        assert_eq!(ports, ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:1", "127.0.0.1:2"]);
    }

    #[test]
    fn an_endpoint_without_an_address_is_passed_over() {
        let unresolved = Endpoint::new("x:1".into(), "x".into(), 1, Some(("x".into(), 1)), Vec::new());
        let mut endpoints = vec![Arc::new(unresolved)];
        assert!(Balance::new(endpoints.clone()).pick(&Tried::new()).is_none());
        endpoints.push(fixed("127.0.0.1:2"));
        let balance = Balance::new(endpoints);
        assert_eq!(balance.pick(&Tried::new()).unwrap().address.to_string(), "127.0.0.1:2");
    }

    fn balance(addresses: &[&str]) -> Balance {
        Balance::new(addresses.iter().map(|address| fixed(address)).collect())
    }

    fn fixed(address: &str) -> Arc<Endpoint> {
        let parsed = Address::tcp(address.parse().unwrap());
        Arc::new(Endpoint::new(address.into(), address.into(), 1, None, vec![parsed]))
    }
}
