// asm/unistd.h: numbers that x86-64 and arm64 share (all from 424 on).

export const __NR_pidfd_send_signal = 424;
export const __NR_io_uring_setup = 425;
export const __NR_pidfd_open = 434;
