//! One pod's process, for tests; the `podfence` command does the same with a hidden verb.
fn main() -> std::process::ExitCode {
    lab::pod::main(std::env::args_os().skip(1))
}
