# cython: language_level=3, boundscheck=False, wraparound=False
"""CRC-32C (Castagnoli; RFC 3720 12.1, check value 0xE3069283 for b"123456789").

The processor's instruction where there is one (x86 SSE4.2, ARMv8 CRC), found at import; else slicing by 8. The object file holds all
of them and runs on any processor of its architecture. The instruction has a latency of 3 cycles, so three strands are worked at once
and joined by a multiplication with x^(8n) modulo the polynomial (a table look-up: four 256-entry tables for each strand length).
"""
from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <stddef.h>
    #include <string.h>

    #define STRAND 1360            /* bytes; three of them are nearly a 4 KiB page */

    static uint32_t slices[8][256];
    static uint32_t shift_by_strand[4][256];

    static uint32_t crc_by_table(const uint8_t *p, size_t n, uint32_t c) {
        while (n >= 8) {
            uint32_t a = c ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
            c = slices[7][a & 255] ^ slices[6][a >> 8 & 255] ^ slices[5][a >> 16 & 255] ^ slices[4][a >> 24]
              ^ slices[3][p[4]] ^ slices[2][p[5]] ^ slices[1][p[6]] ^ slices[0][p[7]];
            p += 8; n -= 8;
        }
        while (n--) c = slices[0][(c ^ *p++) & 255] ^ c >> 8;
        return c;
    }

    static inline uint32_t shifted(uint32_t c) {
        return shift_by_strand[0][c & 255] ^ shift_by_strand[1][c >> 8 & 255] ^ shift_by_strand[2][c >> 16 & 255] ^ shift_by_strand[3][c >> 24];
    }

    #if defined(__x86_64__) && defined(__GNUC__)
    #include <cpuid.h>
    #ifdef __clang__               /* for which the instruction is a feature of its own */
    #define WITH_CRC __attribute__((target("sse4.2,crc32")))
    #else
    #define WITH_CRC __attribute__((target("sse4.2")))
    #endif
    static inline WITH_CRC uint32_t step8(uint32_t c, uint64_t w) { return (uint32_t)__builtin_ia32_crc32di(c, w); }
    static inline WITH_CRC uint32_t step1(uint32_t c, uint8_t b) { return __builtin_ia32_crc32qi(c, b); }
    static int processor_has_crc(void) {                                                       /* __builtin_cpu_supports says no to all under zig */
        unsigned a, b, c, d;
        return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_2) != 0;
    }
    #elif defined(__aarch64__) && defined(__GNUC__) && defined(__linux__)
    #include <sys/auxv.h>
    #define WITH_CRC
    static inline uint32_t step8(uint32_t c, uint64_t w) {
        __asm__(".arch_extension crc\\n\\tcrc32cx %w0, %w0, %x1" : "+r"(c) : "r"(w)); return c;
    }
    static inline uint32_t step1(uint32_t c, uint8_t b) {
        __asm__(".arch_extension crc\\n\\tcrc32cb %w0, %w0, %w1" : "+r"(c) : "r"((uint32_t)b)); return c;
    }
    static int processor_has_crc(void) { return (getauxval(AT_HWCAP) & (1UL << 7)) != 0; }      /* HWCAP_CRC32 */
    #endif

    #ifdef WITH_CRC
    static WITH_CRC uint32_t crc_by_instruction(const uint8_t *p, size_t n, uint32_t c) {
        uint64_t w, x, y;
        while (n >= 3 * STRAND) {
            uint32_t c1 = 0, c2 = 0;
            for (size_t i = 0; i < STRAND; i += 8) {
                memcpy(&w, p + i, 8); memcpy(&x, p + i + STRAND, 8); memcpy(&y, p + i + 2 * STRAND, 8);
                c = step8(c, w); c1 = step8(c1, x); c2 = step8(c2, y);
            }
            c = shifted(shifted(c) ^ c1) ^ c2;
            p += 3 * STRAND; n -= 3 * STRAND;
        }
        for (; n >= 8; p += 8, n -= 8) { memcpy(&w, p, 8); c = step8(c, w); }
        while (n--) c = step1(c, *p++);
        return c;
    }
    #else
    #define crc_by_instruction crc_by_table
    static int processor_has_crc(void) { return 0; }
    #endif

    static uint32_t (*crc_update)(const uint8_t *, size_t, uint32_t);

    static void crc_prepare(void) {
        static const uint8_t zeros[STRAND];
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++) c = c >> 1 ^ (c & 1 ? 0x82F63B78u : 0);
            slices[0][i] = c;
        }
        for (uint32_t i = 0; i < 256; i++)
            for (int t = 1; t < 8; t++) slices[t][i] = slices[t - 1][i] >> 8 ^ slices[0][slices[t - 1][i] & 255];
        for (uint32_t i = 0; i < 256; i++)
            for (int t = 0; t < 4; t++) shift_by_strand[t][i] = crc_by_table(zeros, STRAND, i << 8 * t);
        crc_update = processor_has_crc() ? crc_by_instruction : crc_by_table;
    }
    """
    uint32_t crc_by_table(const uint8_t *p, size_t n, uint32_t c) noexcept nogil
    uint32_t (*crc_update)(const uint8_t *, size_t, uint32_t) noexcept nogil
    void crc_prepare() noexcept nogil
    int processor_has_crc() noexcept nogil

crc_prepare()


cdef uint32_t crc32c_of(const uint8_t *data, size_t size, uint32_t seed) noexcept nogil:
    """The CRC of seed's data followed by this data; seed 0 begins."""
    return ~crc_update(data, size, ~seed)


def crc32c(const uint8_t[::1] data not None, uint32_t seed=0) -> int:
    """CRC-32C of a buffer; crc32c(b, crc32c(a)) == crc32c(a + b)."""
    return crc32c_of(&data[0], data.shape[0], seed) if data.shape[0] else seed


def crc32c_by_table(const uint8_t[::1] data not None, uint32_t seed=0) -> int:
    """The same without the processor's instruction: for processors without it, and to test one against the other."""
    return ~crc_by_table(&data[0], data.shape[0], ~seed) & <uint32_t>0xffffffff if data.shape[0] else seed


def by_instruction() -> bool:
    """Whether this processor has the instruction."""
    return bool(processor_has_crc())
