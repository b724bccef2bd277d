// What the first stage reads: a gated row of one packed sequence, zero outside it, alone or with its neighbour tile.
//
// A filter no longer than the plan runs over a long sequence in tiles. Modulo z^L - i the tile before is worth -i times
// itself, and the tile after i times, so each rides along as the imaginary part of the input: no overlap, no extra
// transform.
#pragma once
#include <algorithm>

#include "rows.h"
#include "transform.h"

namespace dnasm::cpu {

struct Signal {
    Row row, gate;
    int64_t start, end;

    // Samples [at, at + n) of the sequence, gated.
    void fill(int64_t at, int64_t n, float* to) const {
        const int64_t here = std::clamp<int64_t>(end - start - at, 0, n);
        if (here > 0) {
            read(row, start + at, here, to);
            scale(gate, start + at, here, to);
        }
        std::fill(to + here, to + n, 0.0f);
    }
};

struct Alone final : Source {
    const Signal& signal;
    int64_t tile;

    Alone(const Signal& signal_, int64_t tile_) : signal(signal_), tile(tile_) {}
    void real(int64_t at, int64_t n, float* to) const override { signal.fill(tile + at, n, to); }
};

struct WithPast final : Source {
    const Signal& signal;
    int64_t tile, plan_length;

    WithPast(const Signal& signal_, int64_t tile_, int64_t plan_length_)
        : signal(signal_), tile(tile_), plan_length(plan_length_) {
        complex = true;
    }
    void real(int64_t at, int64_t n, float* to) const override { signal.fill(tile + at, n, to); }
    void imag(int64_t at, int64_t n, float* to) const override {
        signal.fill(tile - plan_length + at, n, to);
        for (int64_t i = 0; i < n; ++i) to[i] = -to[i];
    }
};

struct WithFuture final : Source {
    const Signal& signal;
    int64_t tile, plan_length;

    WithFuture(const Signal& signal_, int64_t tile_, int64_t plan_length_)
        : signal(signal_), tile(tile_), plan_length(plan_length_) {
        complex = true;
    }
    void real(int64_t at, int64_t n, float* to) const override { signal.fill(tile + at, n, to); }
    void imag(int64_t at, int64_t n, float* to) const override { signal.fill(tile + plan_length + at, n, to); }
};

// The future's taps, which begin at lag 1: lag 0 belongs to the past.
struct FromLagOne final : Source {
    const Signal& taps;

    explicit FromLagOne(const Signal& taps_) : taps(taps_) {}
    void real(int64_t at, int64_t n, float* to) const override {
        const int64_t gap = at == 0;
        if (gap) to[0] = 0;
        taps.fill(at - 1 + gap, n - gap, to + gap);
    }
};

}  // namespace dnasm::cpu
