//! `--test-memory`: writes patterns into memory and looks whether they stay.

use std::hint::black_box;

/// Passes over the memory that `--test-memory` makes.
const PASSES: usize = 50;

/// Tests so many megabytes; gives the exit code.
pub(crate) fn run(megabytes: &str) -> i32 {
    let Some(megabytes) = megabytes.parse::<usize>().ok().filter(|m| *m > 0) else {
        eprintln!("The amount of memory must be a number of megabytes.");
        return 1;
    };
    let words = megabytes.saturating_mul(1 << 20) / size_of::<u64>();
    let mut memory = Vec::new();
    if memory.try_reserve_exact(words).is_err() {
        eprintln!("Unable to allocate {megabytes} megabytes");
        return 1;
    }
    memory.resize(words, 0u64);
    for pass in 1..=PASSES {
        println!("Pass {pass} of {PASSES}");
        let errors = check(&mut memory, pass as u64);
        if errors > 0 {
            println!("\n*** MEMORY ERROR DETECTED: {errors} words changed by themselves ***");
            return 1;
        }
    }
    println!("\nYour memory passed this test.");
    println!("To be surer still, run a tester that boots by itself, such as memtest86.");
    0
}

/// Fills the memory with patterns and counts the words that do not read back.
fn check(memory: &mut [u64], seed: u64) -> usize {
    const CHECKERS: u64 = 0xaaaa_aaaa_aaaa_aaaa;
    let mut errors = 0;
    let mut with = |pattern: &dyn Fn(usize) -> u64| {
        memory.iter_mut().enumerate().for_each(|(i, word)| *word = pattern(i));
        // Without this the compiler could answer from what it knows it wrote.
        let memory = black_box(&mut *memory);
        errors += memory.iter().enumerate().filter(|(i, word)| **word != pattern(*i)).count();
    };
    with(&|i| i as u64);
    with(&|i| (i as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    with(&|i| if i % 2 == 0 { 0 } else { u64::MAX });
    with(&|i| if i % 2 == 0 { CHECKERS } else { !CHECKERS });
    errors
}

#[cfg(test)]
mod tests {
    #[test]
    fn good_memory_has_no_errors() {
        assert_eq!(super::check(&mut vec![0; 10_000], 7), 0);
    }
}
