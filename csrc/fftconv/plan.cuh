// Which index stands where: radices, shared-memory layout, table layout. Ordinary arithmetic, the same on both sides.
//
// A sequence of kLength = R1 * R2 * 16 * 16 is transformed at the roots of z^L = i: X_m = sum_n x_n e(n (m + 1/4) / L),
// e(t) = exp(2 pi i t), every stage scaled to be unitary. Time n = n1 S1 + n2 256 + r1 16 + r2 with S1 = L / R1;
// frequency m = m1 + R1 m2 + R1 R2 mr + 16 R1 R2 mc; each stage works in place, so m1 stands where n1 stood.
// The outer stages make M = m1 + R1 m2 of n1, n2: stage 1 is e(n1 (m1 + 1/4) / R1), the middle one, whose matrix depends on
// m1, e(n2 (M + 1/4) / (R1 R2)); one twiddle e(r (M + 1/4) / L), r = n mod 256, follows. So the 1/4 stays outside.
//
// The inner 16 x 16 stages run in registers on fragments F(i, j): lane (g, q) = (lane / 4, lane % 4), word w, half h hold
// i = g + 8 (w & 1), j = 2 q + h + 8 (w >> 1). A right operand's words stand in the order 0, 2, 1, 3: a product takes two
// neighbouring registers. Slot s of an inner index holds digit sigma(s) = 2 (s % 8) + s / 8, on the
// time and on the frequency side: the DFT matrix stays symmetric, and a lane's two columns are neighbours in memory.
#pragma once

#include "../host/shim.cuh"

namespace dnasm {

DNASM_SHARED_CODE int sigma(int slot) { return 2 * (slot % 8) + slot / 8; }
DNASM_SHARED_CODE int sigma_inverse(int digit) { return digit / 2 + 8 * (digit % 2); }

// Rows of the table of DFT matrices and twiddles; a row is one Quad for each of 32 lanes.
template <int kR1, int kR2, int kTiles>
struct TableRows {
  static constexpr int kDft = 0;         // re, im, -im of the inner 16-point DFT, as a left operand
  static constexpr int kDftRight = 3;    // and as a right one
  static constexpr int kFirst = 6;       // stage 1 (left) and the last stage (right): 4 rows, or 1 below radix 16
  static constexpr int kInner = 10;      // twiddle between the inner stages: re, im
  static constexpr int kMiddle = 12;     // for each m1, radix 8 as a real 16 x 16 matrix; then the way back
  static constexpr int kOuterForward = kMiddle + 2 * kR1;           // the twiddle, in the order of the stage before it
  static constexpr int kOuterInverse = kOuterForward + 2 * kTiles;  // and in the order of the inner stages' output
  static constexpr int kRows = kOuterInverse + 2 * kTiles;
};

// Rows of the tables that each row of a longer sequence has for itself, see row_entry.
struct RowTables {
  static constexpr int kFirst = 0;       // stage 1 and the last stage: re, im each
  static constexpr int kForward = 4;     // the inner DFT over r1: re, im, -im; and the twiddle after it
  static constexpr int kInner = 7;
  static constexpr int kBack = 9;        // the same on the way back
  static constexpr int kInnerBack = 12;
  static constexpr int kRows = 14;
};

// What a block can have at most: 227 KB on sm_90 and sm_100; kernels for other devices keep to what all of them have.
#if !defined(DNASM_SHARED_KB)
#define DNASM_SHARED_KB 227
#endif
constexpr size_t kSharedLimit = DNASM_SHARED_KB * 1024;

// Measured on an H200: a warp wants two tiles in flight, few warps to wait for, and two blocks an SM where both fit.
DNASM_SHARED_CODE int default_warps(int length) { return length >= 32768 ? 16 : length >= 4096 ? 8 : 4; }
DNASM_SHARED_CODE int default_blocks(int warps) { return 16 / warps; }  // 16 warps an SM leave 128 registers a thread

template <int kL, int kWarpsOfBlock = default_warps(kL), int kBlocks = default_blocks(kWarpsOfBlock)>
struct Plan {
  static_assert(kL >= 256 && kL <= 32768 && (kL & (kL - 1)) == 0);
  static constexpr int kLength = kL;
  static constexpr bool kDirect = kL == 256;  // 16 x 16: a tile is a sequence, no shared memory
  static constexpr int kR2 = kL >= 8192 ? 8 : 1;
  static constexpr int kR1 = kDirect ? 16 : kL / kR2 / 256;
  static constexpr int kStride1 = kL / kR1;
  static constexpr int kTiles = kL / 256;
  using Rows = TableRows<kR1, kR2, kTiles>;

  static constexpr int kWarps = kWarpsOfBlock, kThreads = 32 * kWarps, kBlocksPerSm = kBlocks;
  static constexpr int kTeam = kTiles <= 2 ? 1 : kTiles / 2 < kWarps ? kTiles / 2 : kWarps;  // warps that share a sequence
  static constexpr int kRows = kDirect ? 2 : 1;                                              // sequences of a team
  static constexpr int kTeams = kWarps / kTeam, kSequences = kTeams * kRows;                 // of a block, side by side
  static constexpr bool kForwardStays = kDirect;  // blocks begin cold: with little to do, once
  // Rows that are evicted first leave caches to tables, where these are long and rows many (measured).
  static constexpr bool kForwardStreams = kR2 > 1, kBackwardStreams = kL == 16384;
  static constexpr int kUnits = kRows * kTiles / kTeam;                                      // tiles of a warp
  static_assert(kUnits % 2 == 0);
  DNASM_SHARED_CODE static int row_of(int unit) { return kDirect ? unit : 0; }
  DNASM_SHARED_CODE static int tile_of(int unit) { return kDirect ? 0 : unit; }

  // Rounding the DFT matrices to fp16 shortens forward and back together by this much (measured on white noise through a
  // filter of one tap, tests/csrc); results are lengthened, and so is the sum for the filter's gradient.
  static constexpr float kGain = kL == 256    ? 1 - 0.46e-4f
                                 : kL == 512   ? 1 - 2.22e-4f
                                 : kL == 1024  ? 1 - 2.61e-4f
                                 : kL == 2048  ? 1 - 3.06e-4f
                                 : kL == 4096  ? 1 - 1.28e-4f
                                 : kL == 8192  ? 1 - 4.63e-4f
                                 : kL == 16384 ? 1 - 3.40e-4f
                                               : 1 - 1.57e-4f;

  // Shared memory: a tile of 16 x 16 is four 8 x 8 matrices of 128 bytes for re, four for im. Tiles and outer digits are
  // 16 bytes apart modulo 128, so neither stores of words nor ldmatrix meet a bank conflict.
  static constexpr int kTilePitch = 1040;
  static constexpr int kPitch1 = kR2 == 1 ? kTilePitch : kR2 * kTilePitch + 16;
  static constexpr int kSequenceBytes = kDirect ? 0 : kR1 * kPitch1;
  static constexpr int kMaximaAt = kTeams * kSequenceBytes;
  // The rows' own elements wait for skip and for their scale in registers, or beyond two tiles a warp in shared memory, or
  // in scratch: a Quad of words, and the exponent they were rounded under, for each lane and unit.
  static constexpr bool kParked = kUnits > 2;
  static constexpr int kWordsAt = kMaximaAt + 16 * ((kWarps + 3) / 4), kParkedBytes = kParked ? 2 * kL + kL / 2 : 0;
  static constexpr bool kParkedInScratch = kParked && kWordsAt + kParkedBytes > static_cast<int>(kSharedLimit);
  static constexpr int kSharedBytes = kDirect ? 0 : kWordsAt + (kParkedInScratch ? 0 : kParkedBytes);

  // Stage 1 and the last stage work on units of 256 elements: 16 n1 by the 16 columns of one r1, or, below radix 16,
  // 8 / R1 blocks (b) of R1 n1 by 16 columns, twice (s): r1 = 2 (p0 + b R1) + s. Both offsets are sums over the bits of u.
  DNASM_SHARED_CODE static int unit_column(int u) { return kR1 == 16 ? 16 * u : u / kR1 * 256 + u % kR1 * 32; }
  DNASM_SHARED_CODE static int unit_bytes(int u) {
    return kR1 == 16 ? u / 16 * kTilePitch + u % 16 / 2 * 16 + u % 2 * 256 : u / kR1 * kTilePitch + u % kR1 * 16;
  }
  // Word w of a unit: its offset in the row beyond lane_column, in elements.
  DNASM_SHARED_CODE static int word_column(int w) {
    return kR1 == 16 ? (w % 2 + w / 2 * 8) * kStride1 : w % 2 * kStride1 + w / 2 * 16;
  }
  DNASM_SHARED_CODE static int lane_column(int lane) {
    const int e = lane % 4 * 2, columns = lane / 4 * 2;
    return e % kR1 * kStride1 + (kR1 == 16 ? 0 : e / kR1 * kR1 * 32) + columns;
  }
  DNASM_SHARED_CODE static int tile_bytes(int t) { return t / kR2 * kPitch1 + t % kR2 * kTilePitch; }

  // The frequency at F(i, j) of tile t, and back.
  DNASM_SHARED_CODE static int frequency(int t, int i, int j) {
    if (kDirect) return i + 16 * sigma(j);
    return t / kR2 + kR1 * (t % kR2 + kR2 * (sigma(i) + 16 * sigma(j)));
  }
  // Where the spectrum holds frequency m: the index of its re half; im stands kImHalves behind. [tile][re, im][lane][word][half]
  static constexpr int kImHalves = 256;
  DNASM_SHARED_CODE static int position(int m) {
    const int t = kDirect ? 0 : m % kR1 * kR2 + m / kR1 % kR2;
    const int i = kDirect ? m % 16 : sigma_inverse(m / (kR1 * kR2) % 16);
    const int j = sigma_inverse(kDirect ? m / 16 : m / (16 * kR1 * kR2));
    const int lane = i % 8 * 4 + j % 8 / 2, word = i / 8 + j / 8 * 2;
    return t * 512 + lane * 8 + word * 2 + j % 2;
  }
};
static_assert(Plan<4096>::position(1) == 512 && Plan<4096>::position(16) == 2 && Plan<256>::position(1) == 32);

}  // namespace dnasm
