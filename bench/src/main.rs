//! `sluice bench` alone, which builds faster than the whole binary when working on the packet path.

use clap::Parser;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "bench")]
struct BenchArguments {
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    bench: bench::Bench,
}

fn main() -> ExitCode {
    let arguments = BenchArguments::parse();
    bench::run(&arguments.bench, arguments.json)
}
