// The right-angle transform: values of a real polynomial at the roots of z^L = i, and back.
//
// Stages work in place and depth first: a block is split, and each part is taken through all its stages, the product in
// frequency and all inverse stages before the next part is touched, so that long transforms run in cache. Frequencies
// are never put in order: the filter's stand in the same places.
#pragma once
#include <algorithm>

#include "butterfly.h"
#include "crew.h"
#include "plan.h"
#include "signal.h"

namespace dnasm::cpu {

constexpr int64_t kSlab = 16384;   // columns that one worker of a crew takes at a time
constexpr int64_t kColumns = 256;  // positions of each row that the first and last stage buffer: 8 KB at radix 8

template <class Body> void with_radix(int radix, Body body) {
    switch (radix) {
        case 1: return body(std::integral_constant<int, 1>{});
        case 2: return body(std::integral_constant<int, 2>{});
        case 3: return body(std::integral_constant<int, 3>{});
        case 4: return body(std::integral_constant<int, 4>{});
        case 5: return body(std::integral_constant<int, 5>{});
        default: return body(std::integral_constant<int, 8>{});
    }
}

template <int R> [[gnu::noinline]] void split(const Stage& stage, Cvec* z) {
    const int64_t n = stage.vectors;
    const Cvec* roots = stage.roots.get();
    for (int64_t v = 0; v < n; ++v, roots += R - 1) {
        Cvec a[R];
        for (int j = 0; j < R; ++j) a[j] = z[j * n + v];
        Dft<R, 1>::run(a);
        z[v] = a[0];
        for (int m = 1; m < R; ++m) z[m * n + v] = a[m] * roots[m - 1];
    }
}

template <int R> [[gnu::noinline]] void join(const Stage& stage, Cvec* z) {
    const int64_t n = stage.vectors;
    const Cvec* roots = stage.roots.get();
    for (int64_t v = 0; v < n; ++v, roots += R - 1) {
        Cvec a[R];
        a[0] = z[v];
        for (int m = 1; m < R; ++m) a[m] = times_conj(z[m * n + v], roots[m - 1]);
        Dft<R, -1>::run(a);
        for (int j = 0; j < R; ++j) z[j * n + v] = a[j];
    }
}

inline void turn_square(Cvec (&a)[8]) {
    Vec re[8], im[8];
    for (int i = 0; i < 8; ++i) re[i] = a[i].re, im[i] = a[i].im;
    transpose(re);
    transpose(im);
    for (int i = 0; i < 8; ++i) a[i] = {re[i], im[i]};
}

[[gnu::noinline]] inline void tail_forward(const Plan& plan, Cvec (&a)[8]) {
    Dft<8, 1>::run(a);
    for (int m = 1; m < 8; ++m) a[m] = a[m] * plan.tail[m];
    turn_square(a);
    Dft<8, 1>::run(a);
}

[[gnu::noinline]] inline void tail_inverse(const Plan& plan, Cvec (&a)[8]) {
    Dft<8, -1>::run(a);
    turn_square(a);
    for (int m = 1; m < 8; ++m) a[m] = times_conj(a[m], plan.tail[m]);
    Dft<8, -1>::run(a);
}

// Take N signals, in place, through the stages after the first, `leaf` in frequency, and back. A Leaf says which of the
// signals need the way there and the way back, and is given 64 frequencies of each and their place.
template <class Leaf>
void sweep(const Plan& plan, const Leaf& leaf, Cvec* const (&z)[Leaf::kSignals], size_t level, int64_t at) {
    if (level == plan.stages.size()) {
        Cvec a[Leaf::kSignals][8];
        for (int s = 0; s < Leaf::kSignals; ++s) {
            std::copy_n(z[s] + at, 8, a[s]);
            if (Leaf::kForward[s]) tail_forward(plan, a[s]);
        }
        leaf(a, at);
        for (int s = 0; s < Leaf::kSignals; ++s) {
            if (Leaf::kInverse[s]) tail_inverse(plan, a[s]);
            if (Leaf::kInverse[s]) std::copy_n(a[s], 8, z[s] + at);
        }
        return;
    }
    const Stage& stage = plan.stages[level];
    with_radix(stage.radix, [&](auto r) {
        for (int s = 0; s < Leaf::kSignals; ++s)
            if (Leaf::kForward[s]) split<r.value>(stage, z[s] + at);
        for (int m = 0; m < r.value; ++m) sweep(plan, leaf, z, level + 1, at + m * stage.vectors);
        for (int s = 0; s < Leaf::kSignals; ++s)
            if (Leaf::kInverse[s]) join<r.value>(stage, z[s] + at);
    });
}

template <class Leaf>
void sweep(const Plan& plan, const Crew& crew, const Leaf& leaf, Cvec* const (&z)[Leaf::kSignals]) {
    crew.each(plan.radix, [&](int64_t m, int64_t) { sweep(plan, leaf, z, 0, m * plan.vectors); });
}

// Where the last stage, of which only the real part is wanted, writes to: n samples from position `at`, to be changed
// at will. A crew calls it from many threads.
class Sink {
  public:
    template <class Body> Sink(const Body& body) : body_(&body) {
        call_ = [](const void* b, int64_t at, int64_t n, float* from) { (*static_cast<const Body*>(b))(at, n, from); };
    }
    void operator()(int64_t at, int64_t n, float* from) const { call_(body_, at, n, from); }

  private:
    const void* body_;
    void (*call_)(const void*, int64_t, int64_t, float*);
};

// Both take the columns of one slab: the positions `column`, `column + part`, `column + 2 part` ... together.
template <int R, bool kComplex> void open(const Plan& plan, const Tile& tile, Cvec* z, int64_t slab) {
    alignas(64) float rows[R][kColumns], imag[kComplex ? R : 1][kColumns];
    const int64_t part = plan.vectors * kLanes, end = std::min(part, (slab + 1) * kSlab);
    for (int64_t column = slab * kSlab; column < end; column += kColumns) {
        const int64_t width = std::min(kColumns, end - column);
        for (int j = 0; j < R; ++j) {
            tile.real(j * part + column, width, rows[j]);
            if constexpr (kComplex) tile.imag(j * part + column, width, imag[j]);
        }
        for (int64_t n = 0; n < width; n += kLanes) {
            Cvec a[R];
            for (int j = 0; j < R; ++j) {
                const Vec x = load(rows[j] + n), c = splat(plan.twist[j][0]), s = splat(plan.twist[j][1]);
                a[j] = {x * c, x * s};
                if constexpr (kComplex) {
                    const Vec y = load(imag[j] + n);
                    a[j] = {a[j].re - y * s, a[j].im + y * c};
                }
            }
            Dft<R, 1>::run(a);
            const float* coarse = plan.coarse.get() + 2 * R * ((column + n) / kTail);
            const Cvec* fine = plan.fine.get() + R * ((column + n) % kTail / kLanes);
            for (int m = 0; m < R; ++m) {
                const Cvec root = fine[m] * Cvec{splat(coarse[2 * m]), splat(coarse[2 * m + 1])};
                z[m * plan.vectors + (column + n) / kLanes] = a[m] * root;
            }
        }
    }
}

template <int R> void close(const Plan& plan, const Cvec* z, int64_t length, const Sink& sink, int64_t slab) {
    alignas(64) float rows[R][kColumns];
    const int64_t part = plan.vectors * kLanes, end = std::min(part, (slab + 1) * kSlab);
    for (int64_t column = slab * kSlab; column < std::min(end, length); column += kColumns) {
        const int64_t width = std::min(kColumns, end - column);
        for (int64_t n = 0; n < width; n += kLanes) {
            Cvec a[R];
            const float* coarse = plan.coarse.get() + 2 * R * ((column + n) / kTail);
            const Cvec* fine = plan.fine.get() + R * ((column + n) % kTail / kLanes);
            for (int m = 0; m < R; ++m) {
                const Cvec root = fine[m] * Cvec{splat(coarse[2 * m]), splat(coarse[2 * m + 1])};
                a[m] = times_conj(z[m * plan.vectors + (column + n) / kLanes], root);
            }
            Dft<R, -1>::run(a);
            for (int j = 0; j < R; ++j)
                store(rows[j] + n, a[j].re * splat(plan.twist[j][0]) + a[j].im * splat(plan.twist[j][1]));
        }
        for (int j = 0; j < R; ++j) {
            const int64_t at = j * part + column;
            if (at < length) sink(at, std::min(width, length - at), rows[j]);
        }
    }
}

inline int64_t slabs(const Plan& plan) { return (plan.vectors * kLanes + kSlab - 1) / kSlab; }

// First stage: from samples to the plan's buffer.
inline void open(const Plan& plan, const Crew& crew, const Tile& tile, Cvec* z) {
    crew.each(slabs(plan), [&](int64_t slab, int64_t) {
        with_radix(plan.radix, [&](auto r) {
            tile.neighbour ? open<r.value, true>(plan, tile, z, slab) : open<r.value, false>(plan, tile, z, slab);
        });
    });
}

// Last stage: the first `length` samples, real parts only.
inline void close(const Plan& plan, const Crew& crew, const Cvec* z, int64_t length, const Sink& sink) {
    crew.each(slabs(plan), [&](int64_t slab, int64_t) {
        with_radix(plan.radix, [&](auto r) { close<r.value>(plan, z, length, sink, slab); });
    });
}

}  // namespace dnasm::cpu
