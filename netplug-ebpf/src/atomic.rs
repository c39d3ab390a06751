//! The one atomic operation that the target's `core` lacks: compare and exchange (the instruction is there since
//! Linux 5.12, `BPF_ATOMIC | BPF_CMPXCHG` of the kernel's instruction-set specification).

/// Stores `to` if `value` still is `from`; whether it was.
///
/// # Safety
/// `value` must be 8 bytes of a map's value, aligned to 8.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub unsafe fn exchange(value: *mut u64, from: u64, to: u64) -> bool {
    let seen: u64;
    // SAFETY: the caller's; writes nothing else.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({value} + 0, r0, {to})",
            value = in(reg) value,
            to = in(reg) to,
            inout("r0") from => seen,
            options(nostack)
        );
    }
    seen == from
}

/// The same for the host's compiler, which only checks this crate.
///
/// # Safety
/// As above.
#[cfg(not(target_arch = "bpf"))]
pub unsafe fn exchange(value: *mut u64, from: u64, to: u64) -> bool {
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
    // SAFETY: the caller's.
    unsafe { AtomicU64::from_ptr(value) }.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
}
