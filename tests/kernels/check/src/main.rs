//! Loads the kernel program on the running kernel and prints how many instructions the verifier walked.
use aya::{EbpfLoader, VerifierLogLevel, programs::SchedClassifier};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: kernel-check OBJECT")?;
    let level = if std::env::args().nth(2).is_some() { VerifierLogLevel::VERBOSE } else { VerifierLogLevel::STATS };
    let mut ebpf = EbpfLoader::new().verifier_log_level(level).load(&std::fs::read(path)?)?;
    for name in ["to_pod", "from_pod"] {
        let program: &mut SchedClassifier = ebpf.program_mut(name).ok_or("no such program")?.try_into()?;
        if let Err(error) = program.load() {
            let text = format!("{error:#?}").replace("\\n", "\n");
            let lines: Vec<&str> = text.lines().collect();
            println!("{name}: REJECTED\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
            continue;
        }
        let info = program.info()?;
        println!("{name} verified_insns={:?} jited={} bytes", info.verified_instruction_count(), info.size_jitted());
    }
    Ok(())
}
