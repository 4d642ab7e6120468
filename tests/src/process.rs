//! A child process whose output is kept line by line, and which never outlives its owner.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// A running child.
pub struct Process {
    name: String,
    pid: i32,
    shared: Arc<Shared>,
}

/// Which pipe a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipe {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: Vec<(Pipe, String)>,
    open_pipes: usize,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts the command with both outputs read.
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{name} does not start: {e}: {command:?}"));
        let shared = Arc::new(Shared::default());
        shared.lock().open_pipes = 2;
        read_lines(Pipe::Out, child.stdout.take().unwrap(), shared.clone());
        read_lines(Pipe::Err, child.stderr.take().unwrap(), shared.clone());
        let pid = child.id() as i32;
        let waiter = shared.clone();
        std::thread::spawn(move || {
            // The pid stays ours until the lock is held, so that `signal` can never reach a stranger.
            // SAFETY: all zeroes is a value of this plain struct, and it outlives the call.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            // SAFETY: plain system call over a live struct.
            unsafe { libc::waitid(libc::P_PID, child.id(), &mut info, libc::WEXITED | libc::WNOWAIT) };
            let mut state = waiter.lock();
            state.status = Some(child.wait().unwrap());
            waiter.changed.notify_all();
        });
        Self { name: name.to_owned(), pid, shared }
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The first value that `find` makes of a line, come or still to come. Panics with the output where none does.
    pub fn find<T>(&self, what: &str, mut find: impl FnMut(Pipe, &str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.shared.lock();
        let mut seen = 0;
        loop {
            while seen < state.lines.len() {
                let (pipe, line) = &state.lines[seen];
                seen += 1;
                if let Some(found) = find(*pipe, line) {
                    return found;
                }
            }
            let ended = state.status.is_some() && state.open_pipes == 0;
            let left = deadline.saturating_duration_since(Instant::now());
            if ended || left.is_zero() {
                let text = printed(&state.lines);
                let status = state.status;
                drop(state);
                panic!("{}: no {what} (exit: {status:?}); its output:\n{text}", self.name);
            }
            state = self.shared.wait(state, left);
        }
    }

    /// Waits for a line with this text in it.
    pub fn wait_for(&self, text: &str) {
        self.find(&format!("line with `{text}`"), |_, line| line.contains(text).then_some(()));
    }

    /// The lines so far of one output.
    pub fn lines(&self, pipe: Pipe) -> Vec<String> {
        self.shared.lock().lines.iter().filter(|(p, _)| *p == pipe).map(|(_, line)| line.clone()).collect()
    }

    /// How many lines there are so far of those that `wanted` says yes to.
    pub fn count(&self, wanted: impl Fn(Pipe, &str) -> bool) -> usize {
        self.shared.lock().lines.iter().filter(|(pipe, line)| wanted(*pipe, line)).count()
    }

    /// Sends a signal, unless the process has ended.
    pub fn signal(&self, signal: libc::c_int) {
        let state = self.shared.lock();
        if state.status.is_none() {
            // SAFETY: plain system call; the child was not yet reaped, so the pid is its own.
            unsafe { libc::kill(self.pid, signal) };
        }
    }

    /// Waits until the process has ended and its output is read.
    pub fn wait(&self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        let mut state = self.shared.lock();
        loop {
            if let (Some(status), 0) = (state.status, state.open_pipes) {
                return Some(status);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return state.status;
            }
            state = self.shared.wait(state, left);
        }
    }

    /// SIGTERM, then the exit status. Panics where the process stays.
    pub fn stop(&self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait(PATIENCE).unwrap_or_else(|| panic!("{} did not end on SIGTERM", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(libc::SIGTERM);
        // A server with workers must be let end them: killed, it would leave them behind.
        let patience = if std::thread::panicking() { 1 } else { 5 };
        if self.wait(Duration::from_secs(patience)).is_none() {
            self.signal(libc::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("output of {}:\n{}", self.name, printed(&self.shared.lock().lines));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, left: Duration) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
    }
}

fn read_lines(pipe: Pipe, from: impl Read + Send + 'static, shared: Arc<Shared>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(from);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            shared.lock().lines.push((pipe, line));
            shared.changed.notify_all();
            bytes.clear();
        }
        shared.lock().open_pipes -= 1;
        shared.changed.notify_all();
    });
}

/// The last lines only: a log at debug level would bury the panic.
fn printed(lines: &[(Pipe, String)]) -> String {
    let from = lines.len().saturating_sub(60);
    lines[from..].iter().map(|(_, line)| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        Process::spawn("shell", Command::new("sh").arg("-c").arg(script))
    }

    #[test]
    fn a_line_is_found_in_either_output() {
        let process = shell("echo one; echo two >&2; exec cat /dev/zero > /dev/null");
        process.wait_for("one");
        assert_eq!(process.find("two", |pipe, line| (line == "two").then_some(pipe)), Pipe::Err);
    }

    #[test]
    fn a_process_that_ends_without_the_line_is_reported_at_once() {
        let begun = Instant::now();
        let process = shell("echo last words; exit 3");
        let panic =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| process.wait_for("ready"))).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("last words") && text.contains("ready"), "{text}");
        assert!(begun.elapsed() < PATIENCE / 2);
    }

    #[test]
    fn stop_gives_the_exit_status() {
        let process = shell("trap 'exit 7' TERM; echo up; while :; do :; done");
        process.wait_for("up");
        assert_eq!(process.stop().code(), Some(7));
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process = shell("echo up; exec cat /dev/zero > /dev/null");
        process.wait_for("up");
        let shared = process.shared.clone();
        drop(process);
        assert!(shared.lock().status.is_some());
    }
    #[test]
    fn a_process_of_a_test_that_fails_may_end_what_it_has_begun() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("ended");
        let process =
            shell(&format!("trap 'touch {}; exit' TERM; echo up; while :; do :; done", mark.display()));
        process.wait_for("up");
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _process = process;
            panic!("a test that fails");
        }));
        assert!(failed.is_err() && mark.exists());
    }
}
