#include "fftconv.h"

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

constexpr int64_t kWorth = 1 << 14;    // elements below which a second worker costs more than it brings
constexpr size_t kTogether = 1 << 18;  // plan length from which a transform a thread would cost too much memory

int64_t elements(const Params& p) {
    int64_t n = 0;
    for (const Group& group : p.groups)
        for (const auto& [start, end] : group.pieces) n += end - start;
    return n * p.channels * std::max<int64_t>(1, p.batch);
}

// One plan's share of a call: what the functions below work with.
struct Task {
    const Params& p;
    const Plan& plan;
    Crew crew;  // for the inside of one transform

    void open(const Source& source, Cvec* z) const { cpu::open(plan, crew, source, z); }
    template <class Leaf> void sweep(const Leaf& leaf, Cvec* const (&z)[Leaf::kSignals]) const {
        cpu::sweep(plan, crew, leaf, z);
    }
    void close(const Cvec* z, int64_t length, const Sink& sink) const { cpu::close(plan, crew, z, length, sink); }
};

// How threads are used: side by side on items, or, where one transform outgrows the caches, together on each.
struct Deal {
    size_t longest = 0;  // vectors of the longest transform
    Crew outer, inner;
    std::unique_ptr<Gang> gang;

    explicit Deal(const Params& p) {
        for (const Group& group : p.groups) longest = std::max(longest, size_t(group.plan_length / kLanes));
        const int64_t useful = std::clamp<int64_t>(p.crew.workers, 1, 1 + elements(p) / kWorth);
        if (!together()) {
            outer = {p.crew.threads, useful};
        } else if (useful > 1) {
            gang = std::make_unique<Gang>(useful);
            inner = {gang.get(), useful};
        }
    }
    bool together() const { return longest * kLanes >= kTogether; }

    // body(item, scratch): scratch holds `buffers` transforms of the longest plan.
    template <class Body> void each(int64_t items, int buffers, Body body) const {
        const Aligned<Cvec> scratch(longest * buffers * std::max<int64_t>(1, std::min(outer.workers, items)));
        auto work = [&](int64_t item, int64_t worker) { body(item, scratch.get() + worker * longest * buffers); };
        outer.each(items, work);
    }
};

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
void filter_values(const Task& task, int64_t d, Cvec* z, Cvec* values) {
    const Params& p = task.p;
    const Plan& plan = task.plan;
    const float factor = 1.0f / float(plan.length);
    const Signal past{p.k.row(0, d), {}, 0, std::min(p.taps, plan.length)};
    task.open(Alone{past, 0}, z);
    StoreSpectrum<false> leaf{values, factor};
    task.sweep(leaf, {z});
    if (!p.bidirectional) return;
    const Signal future{p.k.row(1, d), {}, 0, std::min(p.taps, plan.length - 1)};
    task.open(FromLagOne{future}, z);
    StoreSpectrum<true> add{values, factor};
    task.sweep(add, {z});
}

const Cvec* filter_of(const Task& task, int64_t d, Cvec* z, Cvec* values) {
    if (task.p.values) return reinterpret_cast<const Cvec*>(task.p.values + 2 * d * task.plan.length);
    filter_values(task, d, z, values);
    return values;
}

float skip_of(const Params& p, int64_t d) {
    float skip = 0;
    if (p.skip) read(p.skip.row(0, d), 0, 1, &skip);
    return skip;
}

// Opens tile `at` of a sequence with what the tile before it owes.
void open_tile(const Task& task, const Signal& x, int64_t at, Cvec* z) {
    if (at == 0) return task.open(Alone{x, at}, z);
    task.open(WithPast{x, at, task.plan.length}, z);
}

// One sequence, [piece.first, piece.second) of row (b, d).
void forward_piece(const Task& task, const Cvec* filter, int64_t b, int64_t d, Piece piece, Cvec* z) {
    const Params& p = task.p;
    const Plan& plan = task.plan;
    const Signal x{p.u.row(b, d), p.in_gate.row(b, d), piece.first, piece.second};
    const Row y = p.y.row(b, d), gate = p.out_gate.row(b, d);
    const float skip = skip_of(p, d);
    const int64_t length = x.end - x.start;
    for (int64_t tile = 0; tile < length; tile += plan.length) {
        open_tile(task, x, tile, z);
        Multiply<false> leaf{filter};
        task.sweep(leaf, {z});
        task.close(z, std::min(plan.length, length - tile), [&](int64_t at, int64_t n, float* conv) {
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

    Gradients(const Params& p, int64_t b, int64_t d)
        : dy(p.dy.row(b, d)), u(p.u.row(b, d)), in_gate(p.in_gate.row(b, d)), out_gate(p.out_gate.row(b, d)),
          du(p.du.row(b, d)), din_gate(p.din_gate.row(b, d)), dout_gate(p.dout_gate.row(b, d)), skip(skip_of(p, d)) {}
};

// du and din_gate from the convolution's part of the signal's gradient, at [at, at + n) of the row.
void finish_input(const Params& p, const Gradients& row, int64_t at, int64_t n, float* dx) {
    float other[kColumns];
    if (p.skip) {
        read(row.dy, at, n, other);
        scale(row.out_gate, at, n, other);
        for (int64_t i = 0; i < n; ++i) dx[i] += row.skip * other[i];
    }
    if (row.din_gate) {
        std::copy_n(dx, n, other);
        scale(row.u, at, n, other);
        write(row.din_gate, at, n, other);
    }
    if (!row.du) return;
    scale(row.in_gate, at, n, dx);
    write(row.du, at, n, dx);
}

// Sum of g x over a sequence: the gradient of the skip.
double correlate_at_zero(const Gradients& row, Piece piece) {
    double total = 0;
    for (int64_t at = piece.first; at < piece.second; at += kColumns) {
        const int64_t n = std::min(kColumns, piece.second - at);
        alignas(32) float x[kColumns] = {}, g[kColumns] = {};
        read(row.u, at, n, x);
        scale(row.in_gate, at, n, x);
        read(row.dy, at, n, g);
        scale(row.out_gate, at, n, g);
        Vec sums = {};
        for (int64_t i = 0; i < n; i += kLanes) sums += load(x + i) * load(g + i);
        for (int lane = 0; lane < kLanes; ++lane) total += sums[lane];
    }
    return total;
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
void backward_piece(const Task& task, const Cvec* filter, Cvec* product, const Gradients& row, Piece piece,
                    Cvec* const (&z)[2]) {
    const Params& p = task.p;
    const Plan& plan = task.plan;
    const Signal x{row.u, row.in_gate, piece.first, piece.second}, g{row.dy, row.out_gate, piece.first, piece.second};
    const int64_t length = piece.second - piece.first;
    const bool conv = bool(row.dout_gate), tiled = length > plan.length;
    const bool back = row.du || row.din_gate;
    for (int64_t tile = 0; tile < length; tile += plan.length) {
        const int64_t n = std::min(plan.length, length - tile), from = piece.first + tile;
        open_tile(task, x, tile, z[0]);
        task.open(Alone{g, tile}, z[1]);
        auto correlate = [&](auto leaf) { task.sweep(leaf, z); };
        if (conv && back && !tiled) correlate(Correlate<true, true>{filter, product});
        else if (conv) correlate(Correlate<true, false>{filter, product});
        else if (back && !tiled) correlate(Correlate<false, true>{filter, product});
        else correlate(Correlate<false, false>{filter, product});
        auto gate = [&](int64_t at, int64_t count, float* s) { finish_gate(p, row, from + at, count, s); };
        if (conv) task.close(z[0], n, gate);
        if (!back) continue;
        if (tiled) {
            task.open(WithFuture{g, tile, plan.length}, z[1]);
            Multiply<true> leaf{filter};
            task.sweep(leaf, {z[1]});
        }
        task.close(z[1], n, [&](int64_t at, int64_t count, float* dx) { finish_input(p, row, from + at, count, dx); });
    }
}

// Adds the lags of a product G conj X, which it spoils, to the gradient of channel d's taps.
void add_filter_gradient(const Task& task, const Cvec* product, Cvec* z, float* dk) {
    const Params& p = task.p;
    const Plan& plan = task.plan;
    const float factor = 1.0f / float(plan.length);
    const int64_t taps = std::min(p.taps, plan.length);
    std::copy_n(product, plan.length / kLanes, z);
    Return<false> leaf;
    task.sweep(leaf, {z});
    task.close(z, taps, [&](int64_t at, int64_t n, float* lags) {
        for (int64_t i = 0; i < n; ++i) dk[at + i] += factor * lags[i];
    });
    if (!p.bidirectional) return;
    std::copy_n(product, plan.length / kLanes, z);
    Return<true> conjugate;
    task.sweep(conjugate, {z});
    task.close(z, std::min(p.taps + 1, plan.length), [&](int64_t at, int64_t n, float* lags) {
        for (int64_t i = at == 0; i < n; ++i) dk[p.taps + at + i - 1] += factor * lags[i];
    });
}

}  // namespace

void spectrum(const Params& p, float* values) {
    const auto plans = plans_of(p);
    const Deal deal(p);
    deal.each(p.channels, 1, [&](int64_t d, Cvec* z) {
        filter_values({p, *plans[0], deal.inner}, d, z, reinterpret_cast<Cvec*>(values + 2 * d * plans[0]->length));
    });
}

void forward(const Params& p) {
    const auto plans = plans_of(p);
    const Deal deal(p);
    const Chunks chunks(p.batch, p.channels, deal.outer.workers > 1 ? 4 * deal.outer.workers : 1);
    deal.each(p.channels * chunks.per_channel, 2, [&](int64_t item, Cvec* scratch) {
        const int64_t d = item / chunks.per_channel, first = item % chunks.per_channel * chunks.rows;
        for (size_t i = 0; i < plans.size(); ++i) {
            const Task task{p, *plans[i], deal.inner};
            const Cvec* filter = filter_of(task, d, scratch, scratch + deal.longest);
            for (int64_t b = first; b < std::min(p.batch, first + chunks.rows); ++b)
                for (const Piece& piece : p.groups[i].pieces) {
                    if (b + 1 < p.batch) {
                        for (const View* v : {&p.u, &p.in_gate, &p.out_gate}) prefetch<0>(v->row(b + 1, d), piece);
                        prefetch<1>(p.y.row(b + 1, d), piece);
                    }
                    forward_piece(task, filter, b, d, piece, scratch);
                }
        }
    });
}

void backward(const Params& p) {
    const auto plans = plans_of(p);
    const Deal deal(p);
    // Sums over the batch are taken in parts that depend on the shape alone: any number of workers gives the same bits.
    const Chunks chunks(p.batch, p.channels, deal.together() ? 1 : 32);
    const int64_t parts = chunks.per_channel, lags = p.taps * (p.bidirectional ? 2 : 1);
    std::vector<float> dk(p.dk && parts > 1 ? size_t(p.channels * parts * lags) : 0);
    std::vector<double> dskip(size_t(p.channels * parts));
    deal.each(p.channels * parts, 4, [&](int64_t item, Cvec* scratch) {
        const int64_t d = item / parts, first = item % parts * chunks.rows;
        float* taps = !p.dk ? nullptr : parts > 1 ? dk.data() + item * lags : p.dk + d * lags;
        for (size_t i = 0; i < plans.size(); ++i) {
            const Task task{p, *plans[i], deal.inner};
            Cvec *z[2] = {scratch, scratch + deal.longest}, *product = scratch + 3 * deal.longest;
            const Cvec* filter = filter_of(task, d, z[0], scratch + 2 * deal.longest);
            if (taps) std::fill_n(product, plans[i]->length / kLanes, Cvec(Vec{}, Vec{}));
            for (int64_t b = first; b < std::min(p.batch, first + chunks.rows); ++b) {
                const Gradients row(p, b, d);
                for (const Piece& piece : p.groups[i].pieces) {
                    backward_piece(task, filter, taps ? product : nullptr, row, piece, z);
                    if (p.dskip) dskip[size_t(item)] += correlate_at_zero(row, piece);
                }
            }
            if (taps) add_filter_gradient(task, product, z[0], taps);
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
