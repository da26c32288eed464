//! The process that holds a shared PID namespace (`shareProcessNamespace`): process 1 of the pod,
//! which sleeps and lets the kernel reap orphans.
//!
//! It must not have the node's file system as its root (the pod can see its `/proc/1/root`), so it
//! needs a self-contained executable. That is a few instructions, written here as a complete ELF
//! file: no build step, no libc, no image to pull. In C:
//!
//! ```c
//! sigaction(SIGCHLD, { .sa_handler = SIG_IGN }); // the kernel reaps children by itself
//! for (;;) pause();                              // as process 1 it ignores all but SIGKILL
//! ```

/// Load address; the file is mapped as a whole.
const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// x86-64: rt_sigaction is 13, pause is 34. `lea rsi` reaches over the rest of the code to the
/// struct.
const CODE_X86_64: [u8; 41] = [
    0xb8, 0x0d, 0x00, 0x00, 0x00, // mov eax, 13
    0xbf, 0x11, 0x00, 0x00, 0x00, // mov edi, 17 (SIGCHLD)
    0x48, 0x8d, 0x35, 0x18, 0x00, 0x00, 0x00, // lea rsi, [rip + 24]
    0x31, 0xd2, // xor edx, edx
    0x41, 0xba, 0x08, 0x00, 0x00, 0x00, // mov r10d, 8
    0x0f, 0x05, // syscall
    0xb8, 0x22, 0x00, 0x00, 0x00, // mov eax, 34
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp to the last mov
    0x90, 0x90, 0x90, 0x90, 0x90, // up to a multiple of four
];

/// AArch64: rt_sigaction is 134, ppoll is 73 (there is no pause).
const CODE_AARCH64: [u32; 13] = [
    0xd280_10c8, // mov x8, #134
    0xd280_0220, // mov x0, #17
    0x1000_0161, // adr x1, #44 (from this instruction to the struct)
    0xd280_0002, // mov x2, #0
    0xd280_0103, // mov x3, #8
    0xd400_0001, // svc #0
    0xd280_0928, // mov x8, #73
    0xd280_0000, // mov x0, #0
    0xd280_0001, // mov x1, #0
    0xd280_0002, // mov x2, #0
    0xd280_0003, // mov x3, #0
    0xd400_0001, // svc #0
    0x17ff_fffa, // b back six instructions
];

/// `struct kernel_sigaction` with SIG_IGN and nothing else.
const IGNORE: [u64; 4] = [1, 0, 0, 0];

/// The executable for this machine; `None` if there is no code for its architecture.
pub(super) fn executable() -> Option<Vec<u8>> {
    match std::env::consts::ARCH {
        "x86_64" => Some(elf(62, &CODE_X86_64)),
        "aarch64" => {
            let code: Vec<u8> = CODE_AARCH64.iter().flat_map(|word| word.to_le_bytes()).collect();
            Some(elf(183, &code))
        }
        _ => None,
    }
}

/// A static 64-bit little-endian ELF file with one segment: headers, code, struct.
fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    let size = HEADERS + code.len() as u64 + 32;
    let mut file = Vec::with_capacity(256);
    file.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(2_u16.to_le_bytes()); // executable
    file.extend(machine.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    file.extend((BASE + HEADERS).to_le_bytes()); // entry
    file.extend(64_u64.to_le_bytes()); // program headers follow
    file.extend(0_u64.to_le_bytes()); // no sections
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes()); // load
    file.extend(5_u32.to_le_bytes()); // read, execute
    for word in [0, BASE, BASE, size, size, 0x1_0000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    for word in IGNORE {
        file.extend(word.to_le_bytes());
    }
    file
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn it_runs_and_sleeps_until_killed() {
        let Some(program) = executable() else { return };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pause");
        std::fs::write(&path, program).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = std::process::Command::new(&path).spawn().unwrap();
        // Once it ignores SIGCHLD (bit 16 of SigIgn), it only sleeps.
        let status = format!("/proc/{}/status", child.id());
        let ignores = || {
            let text = std::fs::read_to_string(&status).unwrap();
            let mask = text.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << 16) != 0
        };
        while !ignores() {
            assert!(child.try_wait().unwrap().is_none(), "it exited by itself");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }
}
