//! wrk, the load generator.

use std::process::Command;

use super::program;
use crate::PATIENCE;

/// What a run came to.
#[derive(Debug)]
pub struct Load {
    /// Requests that were answered.
    pub requests: u64,
    /// Answers with a status from 400.
    pub bad_statuses: u64,
    /// Connections that broke, and answers that were not there within our patience.
    pub socket_errors: u64,
}

/// Runs wrk with one thread.
pub fn wrk(url: &str, connections: usize, seconds: u32) -> Load {
    let output = Command::new(program("wrk"))
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")])
        // Its own limit of two seconds would count answers that a busy machine gives late.
        .args(["--timeout", &format!("{}s", PATIENCE.as_secs()), url])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "wrk failed: {output:?}");
    read(&text)
}

fn read(text: &str) -> Load {
    let line = |mark: &str| text.lines().map(str::trim).find(|line| line.contains(mark)).unwrap_or_default();
    let numbers = |line: &str| -> Vec<u64> {
        line.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
    };
    Load {
        requests: *numbers(line(" requests in "))
            .first()
            .unwrap_or_else(|| panic!("not wrk's output: {text}")),
        bad_statuses: numbers(line("Non-2xx")).last().copied().unwrap_or(0),
        socket_errors: numbers(line("Socket errors")).iter().sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_output_is_read() {
        let load = read(
            "Running 1s test\n  1000 requests in 1.00s, 2.00MB read\n  Socket errors: connect 1, read 2, write 0, timeout 3\n  \
             Non-2xx or 3xx responses: 44\nRequests/sec: 1000.00\n",
        );
        assert_eq!((load.requests, load.bad_statuses, load.socket_errors), (1000, 44, 6));
    }
}
