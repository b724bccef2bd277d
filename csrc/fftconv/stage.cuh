// The DFT stages of one sequence, on tensor cores. An accumulator, rounded to fp16, is the next product's operand.
//
// With F(i, j) as the left operand, F(i, j) -> F(i, j') ("keep"); as the right one, F(i, j) -> F(j', i) ("turn"): both
// sum over j. An inner tile is read transposed, F(r2, r1), and goes turn, keep | turn, turn back to F(r1, r2).
#pragma once

#include "numeric.cuh"
#include "plan.cuh"

namespace dnasm {

struct DftMatrix {
  Quad re, im, neg_im;
};

DNASM_DEVICE void round_to(uint32_t (&words)[4], int nt, const float (&c)[4]) {
  words[2 * nt] = pack_half2(c[0], c[1]);
  words[2 * nt + 1] = pack_half2(c[2], c[3]);
}

// A complex 16-point DFT over j; the inverse swaps im and -im. d: as the left operand to turn, as the right one to keep.
template <bool kTurn, bool kInverse>
DNASM_DEVICE void dft16(Tile& x, const DftMatrix& d) {
  const Quad& plus = kInverse ? d.neg_im : d.im;
  const Quad& minus = kInverse ? d.im : d.neg_im;
  Tile out;
  DNASM_UNROLL
  for (int nt = 0; nt < 2; ++nt) {
    float re[4] = {}, im[4] = {};
    if (kTurn) {
      mma_16816(re, d.re.w, x.re[nt], x.re[nt + 2]);
      mma_16816(im, d.re.w, x.im[nt], x.im[nt + 2]);
      mma_16816(re, minus.w, x.im[nt], x.im[nt + 2]);
      mma_16816(im, plus.w, x.re[nt], x.re[nt + 2]);
    } else {
      mma_16816(re, x.re, d.re.w[2 * nt], d.re.w[2 * nt + 1]);
      mma_16816(im, x.im, d.re.w[2 * nt], d.re.w[2 * nt + 1]);
      mma_16816(re, x.im, minus.w[2 * nt], minus.w[2 * nt + 1]);
      mma_16816(im, x.re, plus.w[2 * nt], plus.w[2 * nt + 1]);
    }
    round_to(out.re, nt, re);
    round_to(out.im, nt, im);
  }
  x = out;
}

DNASM_DEVICE void store_word(char* at, uint32_t word) { *reinterpret_cast<uint32_t*>(at) = word; }

// One lane's view of one sequence: its warp's place in the team, its addresses, the tables.
template <class P>
struct Transform {
  using R = typename P::Rows;
  int lane, member;    // member: this warp's rank among those that share the sequence
  char* sequence;      // shared memory
  const Quad* tables;  // already at this lane

  DNASM_DEVICE int first_tile() const { return member * P::kUnits; }
  DNASM_DEVICE Quad table(int row) const { return load_table(tables + 32 * row); }
  DNASM_DEVICE DftMatrix dft_matrix(int row = R::kDft) const { return {table(row), table(row + 1), table(row + 2)}; }

  // Stage 1 on a unit's words, x[2 k + h]; sums over the real n1. Without its twiddle.
  DNASM_DEVICE Tile first_product(const uint32_t (&x)[4]) const {
    Tile out;
    const Quad a = table(R::kFirst);
    if (P::kR1 == 16) {
      const Quad b = table(R::kFirst + 1);
      DNASM_UNROLL
      for (int nt = 0; nt < 2; ++nt) {
        float re[4] = {}, im[4] = {};
        mma_16816(re, a.w, x[nt], x[nt + 2]);
        mma_16816(im, b.w, x[nt], x[nt + 2]);
        round_to(out.re, nt, re);
        round_to(out.im, nt, im);
      }
    } else {
      const uint32_t matrix[2] = {a.w[0], a.w[1]};
      DNASM_UNROLL
      for (int w = 0; w < 4; ++w) {
        float c[4] = {};
        mma_1688(c, matrix, x[w]);
        out.re[w] = pack_half2(c[0], c[1]);
        out.im[w] = pack_half2(c[2], c[3]);
      }
    }
    return out;
  }

  // The last stage's real sums for a unit, from complex fragments: F(r2, m1) re and im at radix 16, else (re, im) of
  // s = 0 and of s = 1. Sum 4 k + 2 h + i belongs to the element that stage 1 took from half i of x[2 k + h].
  DNASM_DEVICE void last_product(const uint32_t (&first)[4], const uint32_t (&second)[4], float (&sums)[8]) const {
    float c[2][4] = {};
    if (P::kR1 == 16) {
      const Quad re = table(R::kFirst + 2), im = table(R::kFirst + 3);
      DNASM_UNROLL
      for (int nt = 0; nt < 2; ++nt) {
        mma_16816(c[nt], first, re.w[2 * nt], re.w[2 * nt + 1]);
        mma_16816(c[nt], second, im.w[2 * nt], im.w[2 * nt + 1]);
      }
    } else {
      const Quad b = table(R::kFirst);
      mma_16816(c[0], first, b.w[2], b.w[3]);
      mma_16816(c[1], second, b.w[2], b.w[3]);
    }
    DNASM_UNROLL
    for (int i = 0; i < 8; ++i) sums[i] = c[i / 4][i % 4];
  }

  DNASM_DEVICE void store_first(int i, const Tile& x) const {
    const int g = lane / 4, q = lane % 4, u = first_tile();
    char* at = sequence + g % P::kR1 * P::kPitch1 + (P::kR1 == 16 ? 0 : g / P::kR1 * P::kR1 * 16) + q * 4 +
               P::unit_bytes(u) + P::unit_bytes(i);
    DNASM_UNROLL
    for (int w = 0; w < 4; ++w) {
      const int offset = P::kR1 == 16 ? w % 2 * 8 * P::kPitch1 + w / 2 * 128 : w / 2 * 256 + w % 2 * 128;
      store_word(at + offset, x.re[w]);
      store_word(at + offset + 512, x.im[w]);
    }
  }

  DNASM_DEVICE void load_last(int i, uint32_t (&first)[4], uint32_t (&second)[4]) const {
    const int u = first_tile();
    const char* at = sequence + P::unit_bytes(u) + P::unit_bytes(i) + lane / 8 % 2 * 128;
    if (P::kR1 == 16) {
      at += (lane % 8 + lane / 16 * 8) * P::kPitch1;
      ldmatrix_trans(first, at);
      ldmatrix_trans(second, at + 512);
    } else {
      const int e = lane % 8;
      at += e % P::kR1 * P::kPitch1 + e / P::kR1 * P::kR1 * 16 + lane / 16 * 512;
      ldmatrix_trans(first, at);
      ldmatrix_trans(second, at + 256);
    }
  }

  // The middle stage, radix 8 over n2 or m2 in place; forward, the twiddle follows.
  template <bool kInverse>
  DNASM_DEVICE void middle() const {
    constexpr int kPasses = 2 * P::kUnits;  // rows p of one m1: 8 x 16 elements each
    static_assert(kPasses <= 16);
    const int first = member * kPasses, m1 = first / 16;
    const Quad matrix = table(R::kMiddle + 2 * m1 + kInverse);
    DNASM_UNROLL_BY_FOUR
    for (int i = 0; i < kPasses; ++i) {
      const int p = first % 16 + i;
      char* at = sequence + m1 * P::kPitch1 + p % 8 * 16 + p / 8 * 256;
      uint32_t x[4];
      ldmatrix_trans(x, at + lane % 8 * P::kTilePitch + lane / 8 % 2 * 512 + lane / 16 * 128);
      sync_warp();  // every lane has read what another one overwrites
      Quad twiddle{};
      if (!kInverse) twiddle = table(R::kOuterForward + first + i);
      at += lane / 4 * P::kTilePitch + lane % 4 * 4;
      DNASM_UNROLL
      for (int h = 0; h < 2; ++h) {
        float c[4] = {};
        mma_16816(c, matrix.w, x[2 * h], x[2 * h + 1]);
        uint32_t re = pack_half2(c[0], c[1]), im = pack_half2(c[2], c[3]);
        if (!kInverse) multiply<false>(re, im, twiddle.w[h], twiddle.w[2 + h]);
        store_word(at + h * 128, re);
        store_word(at + h * 128 + 512, im);
      }
    }
  }

  // A tile for a turn: its words in the order of a right operand, so that no register needs to move.
  static DNASM_DEVICE void load_plane(uint32_t (&words)[4], const char* at, int lane) {
    uint32_t r[4];
    ldmatrix_trans(r, at + lane % 8 * 16 + lane / 8 % 2 * 256 + lane / 16 * 128);
    words[0] = r[0], words[2] = r[1], words[1] = r[2], words[3] = r[3];
  }

  // Both inner stages of this warp's tiles, two side by side: each waits for itself less than half the time.
  // `visit(i, x)` sees tile i's spectrum; `back`: whether to return from there.
  template <class Visit>
  DNASM_DEVICE void inner(bool back, const Visit& visit) const {
    DNASM_UNROLL_ONCE  // more would outgrow the instruction cache
    for (int i = 0; i < P::kUnits; i += 2) {
      const int t = first_tile() + i;
      Tile x[2];
      char* at[2];
      DNASM_UNROLL
      for (int k = 0; k < 2; ++k) {
        at[k] = sequence + P::tile_bytes(t + k);
        load_plane(x[k].re, at[k], lane);
        load_plane(x[k].im, at[k] + 512, lane);
        at[k] += lane / 4 * 16 + lane % 4 * 4;
      }
      sync_warp();  // every lane has read what another one overwrites
      const DftMatrix d = dft_matrix();
      const Quad inner_re = table(R::kInner), inner_im = table(R::kInner + 1);
      DNASM_UNROLL
      for (int k = 0; k < 2; ++k) {
        dft16<true, false>(x[k], d);
        multiply<false>(x[k], inner_re, inner_im);
      }
      const DftMatrix right = dft_matrix(R::kDftRight);
      DNASM_UNROLL
      for (int k = 0; k < 2; ++k) {
        dft16<false, false>(x[k], right);
        visit(i + k, x[k]);
      }
      if (!back) continue;
      DNASM_UNROLL
      for (int k = 0; k < 2; ++k) {
        dft16<true, true>(x[k], d);
        multiply<true>(x[k], inner_re, inner_im);
        dft16<true, true>(x[k], d);
      }
      DNASM_UNROLL
      for (int k = 0; k < 2; ++k) {
        const int row = R::kOuterInverse + 2 * (t + k);
        multiply<true>(x[k], table(row), table(row + 1));
        DNASM_UNROLL
        for (int w = 0; w < 4; ++w) {
          const int offset = w % 2 * 256 + w / 2 * 128;
          store_word(at[k] + offset, x[k].re[w]);
          store_word(at[k] + offset + 512, x[k].im[w]);
        }
      }
    }
  }

  // All that share the sequence have arrived.
  static DNASM_DEVICE void sync_team() { P::kTeam == 1 ? sync_warp() : sync_block(); }

  // words(i), unit i's operand -> spectrum, seen by `visit(i, tile)`, and if `back`, to unit i's real results,
  // `finish(i, k, sums)`; `prepare(i, k)` comes some time before, to start loads. Units go in pairs, k = i % 2. All warps of
  // the block call this together; shared memory is free again only after another barrier.
  template <class Words, class Visit, class Prepare, class Finish>
  DNASM_DEVICE void run(const Words& words, bool back, const Visit& visit, const Prepare& prepare,
                        const Finish& finish) const {
    if constexpr (P::kDirect) {
      Tile tiles[2];
      const DftMatrix right = dft_matrix(R::kDftRight);
      const Quad forward_re = table(R::kOuterForward), forward_im = table(R::kOuterForward + 1);
      DNASM_UNROLL
      for (int i = 0; i < 2; ++i) {
        tiles[i] = first_product(words(i).w);
        multiply<false>(tiles[i], forward_re, forward_im);
        dft16<false, false>(tiles[i], right);
        visit(i, tiles[i]);
      }
      if (!back) return;
      prepare(0, 0), prepare(1, 1);
      const DftMatrix d = dft_matrix();
      const Quad inverse_re = table(R::kOuterInverse), inverse_im = table(R::kOuterInverse + 1);
      DNASM_UNROLL
      for (int i = 0; i < 2; ++i) {
        dft16<true, true>(tiles[i], d);
        multiply<true>(tiles[i], inverse_re, inverse_im);
        float sums[8];
        last_product(tiles[i].re, tiles[i].im, sums);
        finish(i, i, sums);
      }
    } else {
      DNASM_UNROLL_ONCE
      for (int i = 0; i < P::kUnits; i += 2) {
        DNASM_UNROLL
        for (int k = 0; k < 2; ++k) {
          Tile tile = first_product(words(i + k).w);
          const int row = R::kOuterForward + 2 * (first_tile() + i + k);
          if (P::kR2 == 1) multiply<false>(tile, table(row), table(row + 1));
          store_first(i + k, tile);
        }
      }
      sync_team();
      if constexpr (P::kR2 > 1) middle<false>(), sync_team();
      inner(back, visit);
      if (!back) return;
      if constexpr (P::kR2 > 1) sync_team(), middle<true>();
      if (P::kUnits == 2) prepare(0, 0), prepare(1, 1);
      sync_team();
      DNASM_UNROLL_ONCE
      for (int i = 0; i < P::kUnits; i += 2) {
        if (P::kUnits > 2) prepare(i, 0), prepare(i + 1, 1);
        DNASM_UNROLL
        for (int k = 0; k < 2; ++k) {
          uint32_t first[4], second[4];
          load_last(i + k, first, second);
          float sums[8];
          last_product(first, second, sums);
          finish(i + k, k, sums);
        }
      }
    }
  }
};

}  // namespace dnasm
