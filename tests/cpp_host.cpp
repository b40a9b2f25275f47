// Local attention's kernels for a CPU as a program, for sanitizers: every map has its exact size. A
// problem comes on stdin, its results leave on stdout; see kernels.py and
// test_local_attention_cpp.py.
#include "../models/ops/kernels/local_attention.cpp"

#include <cstdio>
#include <cstdlib>

struct Map {
    std::unique_ptr<float[]> data;
    size_t size;

    explicit Map(size_t size) : data(new float[size]), size(size) {}
    Map &take()
    {
        if (fread(data.get(), 4, size, stdin) != size)
            exit(4);
        return *this;
    }
    void give() const { fwrite(data.get(), 4, size, stdout); }
};

int main()
{
    int header[7];  // batch, height, width, frames, with a constant, threads - 1, reads only
    if (fread(header, 4, 7, stdin) != 7)
        return 4;
    const size_t cells = size_t(header[0]) * header[1] * header[2];
    Map query(cells * KEY_CHANNELS), of_query(query.size), gradient(cells * VALUE_CHANNELS),
        read(gradient.size);
    Map constant(1), softmax(2 * cells), delta(cells);
    std::vector<Map> maps[4];               // keys, values, gradients of both
    std::vector<float *> data[4];
    query.take(), gradient.take(), constant.take();
    for (int kind = 0; kind < 4; ++kind)
        for (int t = 0; t < header[3]; ++t) {
            maps[kind].emplace_back(kind % 2 ? gradient.size : query.size);
            data[kind].push_back(maps[kind][t].data.get());
            if (kind < 2)
                maps[kind][t].take();
        }
    Problem p = {header[0],
                 header[1],
                 header[2],
                 header[3],
                 WINDOW,
                 KEY_CHANNELS,
                 VALUE_CHANNELS,
                 1 + 2 * header[5],
                 query.data.get(),
                 gradient.data.get(),
                 header[4] ? constant.data.get() : nullptr,
                 data[0].data(),
                 data[1].data(),
                 softmax.data.get(),
                 delta.data.get(),
                 read.data.get(),
                 data[2].data(),
                 data[3].data()};
    if (read_memory(p))
        return 5;
    p.result = of_query.data.get();
    if (gradient_of_query(p) || gradient_of_memory(p))
        return 5;
    for (const Map *map : {&read, &softmax, &delta, &of_query})
        map->give();
    for (int kind : {2, 3})
        for (const Map &map : maps[kind])
            map.give();
}
