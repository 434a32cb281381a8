//! Loads the kernel program on the running kernel; prints how many instructions the verifier walked, and how the program
//! attaches here.

use aya::{EbpfLoader, VerifierLogLevel, programs::SchedClassifier};
use std::{error::Error, process::ExitCode};

/// The verifier gives up at a million; what nears it on one kernel fails on the next.
const LIMIT: u32 = 200_000;

fn main() -> ExitCode {
    match check() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kernel-check: {}", format!("{error:#?}").replace("\\n", "\n"));
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<(), Box<dyn Error>> {
    let attachment = datapath::Datapath::load(&datapath::Options::default())?.hooks().attachment();
    println!("attachment={attachment:?}");
    let mut loader = EbpfLoader::new();
    let mut ebpf = loader.verifier_log_level(VerifierLogLevel::STATS).load(datapath::OBJECT)?;
    let names: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let program: &mut SchedClassifier = ebpf.program_mut(&name).ok_or("no such program")?.try_into()?;
        program.load()?;
        let info = program.info()?;
        let walked = info.verified_instruction_count().ok_or("this kernel does not count verified instructions")?;
        println!("{name} verified_insns={walked} jited_bytes={}", info.size_jitted());
        if walked > LIMIT {
            return Err(format!("{name}: the verifier walked {walked} instructions, more than {LIMIT}").into());
        }
    }
    Ok(())
}
