// linux/memfd.h

export const MFD_CLOEXEC = 1;
export const MFD_ALLOW_SEALING = 2;
export const MFD_HUGETLB = 4;
/** Linux 6.3; refused with EINVAL before. */
export const MFD_NOEXEC_SEAL = 8;
/** 21 << 26: pages of 2 MiB whatever the machine's default is. */
export const MFD_HUGE_2MB = 1409286144;
