// A control loop that drives while it may and brakes in every other case. docs/consumer.md says what it owes.
//
//     c++ -std=c++17 -I "$(framegate handover include)" brake_or_drive.cpp -o brake_or_drive_cpp
//     ./brake_or_drive_cpp 47800 0x101
#include <chrono>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <iostream>
#include <thread>

#include "framegate_posix.h"
#include "framegate_verdict.hpp"

namespace {

volatile std::sig_atomic_t stopped = 0;

// Your actuators.
void drive(std::uint32_t class_id) { std::cout << "DRIVE class " << class_id << std::endl; }

void brake(const framegate::Reading &reading)
{
    std::cout << "BRAKE:";
    for (unsigned bit = 0; bit < 9; ++bit) {
        if (((reading.why() >> bit) & 1u) != 0u) { std::cout << ' ' << framegate_why_name(bit); }
    }
    for (unsigned bit = 0; bit < 64; ++bit) {
        if (((reading.reasons() >> bit) & 1u) != 0u) { std::cout << ' ' << framegate_reason_name(bit); }
    }
    std::cout << std::endl;
}

}  // namespace

int main(int count, char **words)
{
    if (count < 3) {
        std::cerr << "usage: " << words[0] << " PORT DATA-ID\n";
        return 2;
    }
    std::uint16_t port = 0;
    std::uint32_t data_id = 0;
    if (!framegate_read_port(words[1], &port) || !framegate_read_data_id(words[2], &data_id)) {
        std::cerr << words[1] << ' ' << words[2] << ": expected a port, 1 to 65535, and a data id, 0x0 to 0xffffffff\n";
        return 2;
    }
    auto config = framegate::default_config(data_id);
    config.clock_domain = framegate_this_clock();
    framegate::Receiver receiver{config};
    const int handle = framegate_udp_listen("127.0.0.1", port);
    if (!receiver.configured() || handle < 0) {
        std::cerr << "port " << words[1] << ": cannot listen there (" << std::strerror(errno)
                  << "); is another receiver running?\n";
        return 1;
    }
    std::signal(SIGINT, [](int) { stopped = 1; });
    std::signal(SIGTERM, [](int) { stopped = 1; });
    std::uint32_t last_why = ~0u;
    std::optional<std::uint32_t> last_class;
    while (stopped == 0) {
        framegate_udp_feed(handle, receiver.raw());                // all that waits, every cycle
        const auto reading = receiver.verdict(framegate_now_ns()); // and only then ask
        const auto class_id = reading.class_id();
        if (reading.why() != last_why || class_id != last_class) {
            if (class_id) { drive(*class_id); } else { brake(reading); }
            last_why = reading.why();
            last_class = class_id;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    close(handle);
    return 0;
}
