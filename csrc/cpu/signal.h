// What the first stage reads: a tile of a gated row of one packed sequence, zero outside it, alone or with its neighbour.
//
// A filter no longer than the plan runs over a long sequence in tiles. Modulo z^L - i the tile before is worth -i times
// itself, and the tile after i times, so each rides along as the imaginary part of the input: no overlap, no extra
// transform.
#pragma once
#include <algorithm>

#include "rows.h"

namespace dnasm::cpu {

struct Signal {
    Row row, gate;
    int64_t start, end;

    int64_t length() const { return end - start; }
    // Samples [at, at + n) of the sequence, gated.
    void fill(int64_t at, int64_t n, float* to) const {
        const int64_t first = std::clamp<int64_t>(-at, 0, n), last = std::clamp<int64_t>(length() - at, first, n);
        std::fill(to, to + first, 0.0f);
        if (first < last) {
            read(row, start + at + first, last - first, to + first);
            scale(gate, start + at + first, last - first, to + first);
        }
        std::fill(to + last, to + n, 0.0f);
    }
};

struct Tile {
    const Signal& signal;
    int64_t start;          // of the sequence's samples; may lie before the first
    int64_t neighbour = 0;  // how far the tile that rides along lies from this one: a plan's length back or ahead; 0: none

    void real(int64_t at, int64_t n, float* to) const { signal.fill(start + at, n, to); }
    void imag(int64_t at, int64_t n, float* to) const {
        signal.fill(start + neighbour + at, n, to);
        for (int64_t i = 0; i < n && neighbour < 0; ++i) to[i] = -to[i];
    }
};

}  // namespace dnasm::cpu
