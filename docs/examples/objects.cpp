// A control loop for objects that move: it says in each cycle what is there, and which labels may be used.
//
//     c++ -std=c++17 -I "$(framegate handover include)" objects.cpp -o objects_cpp
//     ./objects_cpp 47800 0x200 16
//     ./objects_cpp 47800 0x200 16 2        where the sender has two --roi beside the objects
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <iostream>
#include <string>
#include <thread>

#include "framegate_objects.hpp"
#include "framegate_posix.h"

namespace {

volatile std::sig_atomic_t stopped = 0;

// Your planner. Not whole: it is not known what is there, so your safe state. An object without a usable label is there
// all the same, and may be anything.
std::string plan(const framegate::ObjectsReading &seen)
{
    std::string said = seen.whole() ? "WHOLE" : "BRAKE";
    for (const auto &each : seen) {
        const auto class_id = each.reading().class_id();
        said += ' ' + std::to_string(each.track()) + ':' + (class_id ? "class" + std::to_string(*class_id) : "anything");
    }
    return said;
}

}  // namespace

int main(int count, char **words)
{
    if (count < 4) {
        std::cerr << "usage: " << words[0] << " PORT DATA-ID-OF-THE-SCENE SLOTS [REGIONS]\n";
        return 2;
    }
    std::uint16_t port = 0;
    std::uint32_t data_id = 0;
    std::uint32_t slots = 0;
    std::uint32_t regions = 0;
    if (!framegate_read_port(words[1], &port) || !framegate_read_data_id(words[2], &data_id)) {
        std::cerr << words[1] << ' ' << words[2] << ": expected a port, 1 to 65535, and a data id, 0x0 to 0xffffffff\n";
        return 2;
    }
    if (!framegate_read_number(words[3], 1u, FRAMEGATE_MAX_SLOTS, &slots)) {
        std::cerr << words[3] << " slots: expected 1 to " << FRAMEGATE_MAX_SLOTS << ", as many as the sender has\n";
        return 2;
    }
    if (count > 4 && !framegate_read_number(words[4], 0u, FRAMEGATE_MAX_REGIONS, &regions)) {
        std::cerr << words[4] << " regions: expected 0 to " << FRAMEGATE_MAX_REGIONS << ", as many --roi as the sender has\n";
        return 2;
    }
    auto config = framegate::default_config(data_id);
    config.clock_domain = framegate_this_clock();  // the sender's, if it runs on this machine
    framegate::ObjectsReceiver receiver{config, slots, regions};
    const int handle = framegate_udp_listen("127.0.0.1", port);
    if (!receiver.configured() || handle < 0) {
        std::cerr << "port " << words[1] << ": cannot listen there (" << std::strerror(errno)
                  << "); is another receiver running?\n";
        return 1;
    }
    std::signal(SIGINT, [](int) { stopped = 1; });
    std::signal(SIGTERM, [](int) { stopped = 1; });
    std::string last;
    while (stopped == 0) {
        framegate_udp_feed_objects(handle, receiver.raw());             // all that waits, every cycle
        const std::string said = plan(receiver.verdict(framegate_now_ns()));  // and only then ask
        if (said != last) {
            std::cout << said << std::endl;
            last = said;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(10));  // 100 Hz: at least ten times a second
    }
    close(handle);
    return 0;
}
