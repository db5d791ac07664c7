// What torch's processor build lacks to take the tensors of a card for a card's: a current device
// with one stream and pinned memory. Kernels it lacks still: `tests/card.py` has them computed.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <cstdlib>
#include <mutex>
#include <set>

namespace {

constexpr c10::DeviceIndex CARDS = 8;

c10::DeviceIndex own() {  // a rank has a card of its own
  const char* rank = std::getenv("LOCAL_RANK");
  return rank ? std::atoi(rank) : 0;
}

struct PinnedMemory : c10::Allocator {
  static std::mutex guard;
  static std::set<const void*> places;

  static void release(void* data) {
    std::lock_guard<std::mutex> alone(guard);
    places.erase(data);
    c10::GetCPUAllocator()->raw_deallocate(data);
  }

  c10::DataPtr allocate(size_t bytes) override {
    void* data = c10::GetCPUAllocator()->raw_allocate(bytes);
    std::lock_guard<std::mutex> alone(guard);
    places.insert(data);
    return {data, data, &release, c10::Device(c10::DeviceType::CPU)};
  }

  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

std::mutex PinnedMemory::guard;
std::set<const void*> PinnedMemory::places;

using NoGuard = c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA>;

struct Guard : NoGuard {
  using Device = c10::Device;
  using Stream = c10::Stream;

  Device getDevice() const override { return {c10::DeviceType::CUDA, own()}; }
  Device exchangeDevice(Device) const override { return getDevice(); }
  c10::DeviceIndex deviceCount() const noexcept override { return CARDS; }
  Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, getDevice()); }
  Stream getDefaultStream(Device) const override { return Stream(Stream::DEFAULT, getDevice()); }
  Stream exchangeStream(Stream stream) const noexcept override { return stream; }
  void record(void**, const Stream&, c10::DeviceIndex, c10::EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, c10::DeviceIndex) const noexcept override {}
  void synchronizeEvent(void*) const override {}
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
};

c10::impl::DeviceGuardImplRegistrar registered(c10::DeviceType::CUDA, new Guard());

}  // namespace

namespace at {

struct MadeUpHooks : CUDAHooksInterface {
  explicit MadeUpHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  int getNumGPUs() const override { return CARDS; }
  DeviceIndex deviceCount() const override { return CARDS; }
  DeviceIndex current_device() const override { return own(); }
  DeviceIndex getCurrentDevice() const override { return own(); }

  bool isPinnedPtr(const void* data) const override {
    std::lock_guard<std::mutex> alone(PinnedMemory::guard);
    return PinnedMemory::places.count(data) > 0;
  }

  Allocator* getPinnedMemoryAllocator() const override {
    static PinnedMemory memory;
    return &memory;
  }
};

namespace {
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, MadeUpHooks)
}

}  // namespace at
