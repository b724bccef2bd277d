#include "fftconv.h"

#include <atomic>
#include <cmath>
#include <memory>

#include "leaves.h"
#include "signal.h"
#include "transform.h"

namespace dnasm::cpu {
namespace {

using PlanPtr = std::shared_ptr<const Plan>;

std::vector<PlanPtr> plans_of(const Params& p) {
    std::vector<PlanPtr> plans;
    for (const Group& group : p.groups) plans.push_back(plan_for(group.plan_length, group.radices));
    return plans;
}

constexpr int64_t kWorth = 1 << 14;  // elements below which a second worker costs more than it brings

int64_t elements(const Params& p) {
    int64_t n = 0;
    for (const Group& group : p.groups)
        for (const auto& [start, end] : group.pieces) n += end - start;
    return n * p.channels * std::max<int64_t>(1, p.batch);
}

// Hands out items to workers as they get free, each with its own scratch of `buffers` transforms of the longest plan.
template <class Body> void share(const Params& p, int64_t items, int buffers, Body body) {
    size_t longest = 0;
    for (const Group& group : p.groups) longest = std::max(longest, size_t(group.plan_length / kLanes));
    const int64_t workers = std::clamp<int64_t>(std::min(p.workers, items), 1, 1 + elements(p) / kWorth);
    const Aligned<Cvec> scratch(longest * buffers * workers);
    struct Context {
        std::atomic<int64_t> next{0};
        int64_t items;
        size_t stride, longest;
        Cvec* scratch;
        Body* body;
    } context{{0}, items, longest * buffers, longest, scratch.get(), &body};
    auto work = [](int64_t worker, void* erased) {
        auto& c = *static_cast<Context*>(erased);
        for (int64_t item; (item = c.next.fetch_add(1)) < c.items;)
            (*c.body)(item, c.scratch + worker * c.stride, c.longest);
    };
    if (workers == 1) return work(0, &context);
    p.parallel(workers, work, &context);
}

struct Chunks {  // how rows are dealt out: a channel at a time, or part of its batch where channels are few
    int64_t per_channel, rows;
    Chunks(int64_t batch, int64_t channels, int64_t wanted) {
        const int64_t share = (wanted + channels - 1) / std::max<int64_t>(1, channels);
        per_channel = std::clamp<int64_t>(share, 1, std::max<int64_t>(1, batch));
        rows = (batch + per_channel - 1) / per_channel;
        per_channel = rows ? (batch + rows - 1) / rows : 1;
    }
};

// Values of channel d's filter over the plan's length, so that the inverse needs no factor.
void filter_values(const Params& p, const Plan& plan, int64_t d, Cvec* z, Cvec* values) {
    const float factor = 1.0f / float(plan.length);
    const Signal past{p.k.row(0, d), {}, 0, std::min(p.taps, plan.length)};
    open(plan, Alone{past, 0}, z);
    StoreSpectrum<false> leaf{values, factor};
    sweep(plan, leaf, {z});
    if (!p.bidirectional) return;
    const Signal future{p.k.row(1, d), {}, 0, std::min(p.taps, plan.length - 1)};
    open(plan, FromLagOne{future}, z);
    StoreSpectrum<true> add{values, factor};
    sweep(plan, add, {z});
}

const Cvec* filter_of(const Params& p, const Plan& plan, int64_t d, Cvec* z, Cvec* values) {
    if (p.values) return reinterpret_cast<const Cvec*>(p.values + 2 * d * plan.length);
    filter_values(p, plan, d, z, values);
    return values;
}

float skip_of(const Params& p, int64_t d) {
    float skip = 0;
    if (p.skip) read(p.skip.row(0, d), 0, 1, &skip);
    return skip;
}

// Opens tile `at` of a sequence with what the tile before it owes.
void open_tile(const Plan& plan, const Signal& x, int64_t at, Cvec* z) {
    if (at == 0) return open(plan, Alone{x, at}, z);
    open(plan, WithPast{x, at, plan.length}, z);
}

// One sequence, [piece.first, piece.second) of row (b, d).
void forward_piece(const Params& p, const Plan& plan, const Cvec* filter, int64_t b, int64_t d, Piece piece, Cvec* z) {
    const Signal x{p.u.row(b, d), p.in_gate.row(b, d), piece.first, piece.second};
    const Row y = p.y.row(b, d), gate = p.out_gate.row(b, d);
    const float skip = skip_of(p, d);
    const int64_t length = x.end - x.start;
    for (int64_t tile = 0; tile < length; tile += plan.length) {
        open_tile(plan, x, tile, z);
        Multiply<false> leaf{filter};
        sweep(plan, leaf, {z});
        close(plan, z, std::min(plan.length, length - tile), [&](int64_t at, int64_t n, float* conv) {
            if (p.skip) {
                float samples[kColumns];
                x.fill(tile + at, n, samples);
                for (int64_t i = 0; i < n; ++i) conv[i] += skip * samples[i];
            }
            scale(gate, x.start + tile + at, n, conv);
            write(y, x.start + tile + at, n, conv);
        });
    }
}

struct Gradients {  // of one row
    Row dy, u, in_gate, out_gate, du, din_gate, dout_gate;
    float skip;
    double dskip = 0;  // sum of g x over the row

    Gradients(const Params& p, int64_t b, int64_t d)
        : dy(p.dy.row(b, d)), u(p.u.row(b, d)), in_gate(p.in_gate.row(b, d)), out_gate(p.out_gate.row(b, d)),
          du(p.du.row(b, d)), din_gate(p.din_gate.row(b, d)), dout_gate(p.dout_gate.row(b, d)), skip(skip_of(p, d)) {}
};

// du, din_gate and dskip from the convolution's part of the signal's gradient, at [at, at + n) of the row.
void finish_input(const Params& p, Gradients& row, int64_t at, int64_t n, float* dx) {
    float g[kColumns], u[kColumns];
    if (p.skip) {
        read(row.dy, at, n, g);
        scale(row.out_gate, at, n, g);
        for (int64_t i = 0; i < n; ++i) dx[i] += row.skip * g[i];
    }
    if (row.din_gate || p.dskip) read(row.u, at, n, u);
    if (row.din_gate) {
        float product[kColumns];
        for (int64_t i = 0; i < n; ++i) product[i] = dx[i] * u[i];
        write(row.din_gate, at, n, product);
    }
    if (p.dskip) {
        scale(row.in_gate, at, n, u);
        Vec sums = {};
        int64_t i = 0;
        for (; i + kLanes <= n; i += kLanes) sums += load(g + i) * load(u + i);
        float sum = 0;
        for (int lane = 0; lane < kLanes; ++lane) sum += sums[lane];
        for (; i < n; ++i) sum += g[i] * u[i];
        row.dskip += sum;
    }
    if (!row.du) return;
    scale(row.in_gate, at, n, dx);
    write(row.du, at, n, dx);
}

void finish_gate(const Params& p, const Gradients& row, int64_t at, int64_t n, float* conv) {
    if (p.skip) {
        float x[kColumns];
        read(row.u, at, n, x);
        scale(row.in_gate, at, n, x);
        for (int64_t i = 0; i < n; ++i) conv[i] += row.skip * x[i];
    }
    scale(row.dy, at, n, conv);
    write(row.dout_gate, at, n, conv);
}

// The signals' gradients of one sequence, and its part in the filter's: `product` += G conj X. z: two buffers.
void backward_piece(const Params& p, const Plan& plan, const Cvec* filter, Cvec* product, Gradients& row, Piece piece,
                    Cvec* const (&z)[2]) {
    const Signal x{row.u, row.in_gate, piece.first, piece.second}, g{row.dy, row.out_gate, piece.first, piece.second};
    const int64_t length = piece.second - piece.first;
    const bool conv = bool(row.dout_gate), tiled = length > plan.length;
    const bool back = row.du || row.din_gate || p.dskip;
    for (int64_t tile = 0; tile < length; tile += plan.length) {
        const int64_t n = std::min(plan.length, length - tile), from = piece.first + tile;
        open_tile(plan, x, tile, z[0]);
        open(plan, Alone{g, tile}, z[1]);
        auto correlate = [&](auto leaf) { sweep(plan, leaf, z); };
        if (conv && back && !tiled) correlate(Correlate<true, true>{filter, product});
        else if (conv) correlate(Correlate<true, false>{filter, product});
        else if (back && !tiled) correlate(Correlate<false, true>{filter, product});
        else correlate(Correlate<false, false>{filter, product});
        auto gate = [&](int64_t at, int64_t count, float* s) { finish_gate(p, row, from + at, count, s); };
        if (conv) close(plan, z[0], n, gate);
        if (!back) continue;
        if (tiled) {
            open(plan, WithFuture{g, tile, plan.length}, z[1]);
            Multiply<true> leaf{filter};
            sweep(plan, leaf, {z[1]});
        }
        close(plan, z[1], n, [&](int64_t at, int64_t count, float* dx) { finish_input(p, row, from + at, count, dx); });
    }
}

// Adds the lags of a product G conj X, which it spoils, to the gradient of channel d's taps.
void add_filter_gradient(const Params& p, const Plan& plan, const Cvec* product, Cvec* z, float* dk) {
    const float factor = 1.0f / float(plan.length);
    const int64_t taps = std::min(p.taps, plan.length);
    std::copy_n(product, plan.length / kLanes, z);
    Return<false> leaf;
    sweep(plan, leaf, {z});
    close(plan, z, taps, [&](int64_t at, int64_t n, float* lags) {
        for (int64_t i = 0; i < n; ++i) dk[at + i] += factor * lags[i];
    });
    if (!p.bidirectional) return;
    std::copy_n(product, plan.length / kLanes, z);
    Return<true> conjugate;
    sweep(plan, conjugate, {z});
    close(plan, z, std::min(p.taps + 1, plan.length), [&](int64_t at, int64_t n, float* lags) {
        for (int64_t i = at == 0; i < n; ++i) dk[p.taps + at + i - 1] += factor * lags[i];
    });
}

}  // namespace

void spectrum(const Params& p, float* values) {
    const auto plans = plans_of(p);
    share(p, p.channels, 1, [&](int64_t d, Cvec* z, size_t) {
        filter_values(p, *plans[0], d, z, reinterpret_cast<Cvec*>(values + 2 * d * plans[0]->length));
    });
}

void forward(const Params& p) {
    const auto plans = plans_of(p);
    const Chunks chunks(p.batch, p.channels, p.workers > 1 ? 4 * p.workers : 1);
    share(p, p.channels * chunks.per_channel, 2, [&](int64_t item, Cvec* scratch, size_t longest) {
        const int64_t d = item / chunks.per_channel, first = item % chunks.per_channel * chunks.rows;
        for (size_t i = 0; i < plans.size(); ++i) {
            const Cvec* filter = filter_of(p, *plans[i], d, scratch, scratch + longest);
            for (int64_t b = first; b < std::min(p.batch, first + chunks.rows); ++b)
                for (const Piece& piece : p.groups[i].pieces) {
                    if (b + 1 < p.batch) {
                        for (const View* v : {&p.u, &p.in_gate, &p.out_gate}) prefetch<0>(v->row(b + 1, d), piece);
                        prefetch<1>(p.y.row(b + 1, d), piece);
                    }
                    forward_piece(p, *plans[i], filter, b, d, piece, scratch);
                }
        }
    });
}

void backward(const Params& p) {
    const auto plans = plans_of(p);
    // Sums over the batch are taken in parts that depend on the shape alone: any number of workers gives the same bits.
    const Chunks chunks(p.batch, p.channels, 32);
    const int64_t parts = chunks.per_channel, lags = p.taps * (p.bidirectional ? 2 : 1);
    std::vector<float> dk(p.dk && parts > 1 ? size_t(p.channels * parts * lags) : 0);
    std::vector<double> dskip(size_t(p.channels * parts));
    share(p, p.channels * parts, 4, [&](int64_t item, Cvec* scratch, size_t longest) {
        const int64_t d = item / parts, first = item % parts * chunks.rows;
        float* taps = !p.dk ? nullptr : parts > 1 ? dk.data() + item * lags : p.dk + d * lags;
        for (size_t i = 0; i < plans.size(); ++i) {
            Cvec *z[2] = {scratch, scratch + longest}, *product = scratch + 3 * longest;
            const Cvec* filter = filter_of(p, *plans[i], d, z[0], scratch + 2 * longest);
            if (taps) std::fill_n(product, plans[i]->length / kLanes, Cvec{});
            for (int64_t b = first; b < std::min(p.batch, first + chunks.rows); ++b) {
                Gradients row(p, b, d);
                for (const Piece& piece : p.groups[i].pieces)
                    backward_piece(p, *plans[i], filter, taps ? product : nullptr, row, piece, z);
                dskip[size_t(item)] += row.dskip;
            }
            if (taps) add_filter_gradient(p, *plans[i], product, z[0], taps);
        }
    });
    for (int64_t d = 0; d < p.channels; ++d) {
        double sum = 0;
        for (int64_t part = 0; part < parts; ++part) {
            sum += dskip[size_t(d * parts + part)];
            const float* taps = dk.data() + (d * parts + part) * lags;
            for (int64_t i = 0; i < lags && !dk.empty(); ++i) p.dk[d * lags + i] += taps[i];
        }
        if (p.dskip) p.dskip[d] = float(sum);
    }
}

}  // namespace dnasm::cpu
