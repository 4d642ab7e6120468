//! The binary with the built-in plugins.

use std::process::ExitCode;

use vestibule::plugins::Registry;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    vestibule::main(Registry::builtin())
}
