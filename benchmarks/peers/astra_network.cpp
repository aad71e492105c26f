// ASTRA-sim's analytical network backend, congestion-aware, on the collectives of benchmarks/network.py.
//
//   git clone --recursive github.com/astra-sim/astra-network-analytical (599a047), build libAnalytical_Congestion_Aware.a, then
//   g++ -O2 -std=c++17 -I BACKEND/include/astra-network-analytical benchmarks/peers/astra_network.cpp libAnalytical_Congestion_Aware.a -o astra_network
//   ./astra_network ring|all_to_all NPUS BYTES GIB_PER_SECOND
//
// ring: all-reduce on a ring of direct links, 2 (n - 1) steps; a worker sends on when a piece has arrived.
// all_to_all: every worker to every other one through one switch, all at once.
// Prints simulated nanoseconds and the seconds that the simulation took.

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>

#include "common/EventQueue.h"
#include "congestion_aware/Chunk.h"
#include "congestion_aware/Ring.h"
#include "congestion_aware/Switch.h"

using namespace NetworkAnalytical;
using namespace NetworkAnalyticalCongestionAware;

struct Step {
    Topology* topology;
    int npus, at, left;  // worker that holds the piece, steps that it has still to go
    ChunkSize size;
};

void arrived(void* argument) {
    std::unique_ptr<Step> step(static_cast<Step*>(argument));
    if (step->left == 0) return;
    const int next = (step->at + 1) % step->npus;
    auto route = step->topology->route(step->at, next);
    auto* topology = step->topology;
    const auto size = step->size;
    step->at = next;
    step->left -= 1;
    topology->send(std::make_unique<Chunk>(size, route, arrived, step.release()));
}

int main(int argc, char** argv) {
    if (argc != 5) return 2;
    const std::string op = argv[1];
    const int npus = std::atoi(argv[2]);
    const auto piece = static_cast<ChunkSize>(std::atof(argv[3]) / npus);
    const Bandwidth bandwidth = std::atof(argv[4]);
    const auto begin = std::chrono::steady_clock::now();
    const auto queue = std::make_shared<EventQueue>();
    Topology::set_event_queue(queue);
    std::unique_ptr<Topology> topology;
    if (op == "ring") {
        topology = std::make_unique<Ring>(npus, bandwidth, 0.0, false);
        for (int i = 0; i < npus; i++) arrived(new Step{topology.get(), npus, i, 2 * (npus - 1), piece});
    } else {
        topology = std::make_unique<Switch>(npus, bandwidth, 0.0);
        for (int shift = 1; shift < npus; shift++)
            for (int i = 0; i < npus; i++)
                topology->send(std::make_unique<Chunk>(piece, topology->route(i, (i + shift) % npus), arrived,
                                                       new Step{topology.get(), npus, i, 0, piece}));
    }
    while (!queue->finished()) queue->proceed();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    std::cout << queue->get_current_time() << " " << took.count() << std::endl;
}
