import pytest

MACHINE = """driver 580.95.05
gpu 0 uuid=GPU-6e2f8a10-52d1-7c3b-9f04-1d2c3b4a5968 serial=1654922006536 name="NVIDIA H100 80GB HBM3" util=87 power_mw=612345 energy_mj=9000000000 energy_step_mj=612345
gpu 1 uuid=GPU-b7d91c44-0a3e-4f52-8c6d-77e19f2a0b31 serial=1654922006537 name="NVIDIA H100 80GB HBM3"
samples gpu=0 type=0 period_us=100000 depth=120 values=610000,612000,615500
samples gpu=1 type=0 period_us=100000 depth=120 values=78000
samples gpu=0 type=1 period_us=20000 depth=120 values=80,90,100
gpm gpu=0 1=87.5 2=80 3=45.25 4=5 5=60 10=33 11=1 12=20 13=55
gpm gpu=1 1=0 2=0
process gpu=0 pid=3141592 memory=1073741824 type=compute sm=40 mem=10 t_us=5
process gpu=1 pid=2718281 memory=1048576 type=graphics
"""


@pytest.mark.parametrize("keep", [True, False])
def test_try(gpu_machine, fake_nvml, tmp_path, keep):
    fake_nvml.write(MACHINE)
    m = gpu_machine(fake_nvml, kind="record", keep_identities=keep)
    seen = []
    for i in range(61):
        fake_nvml.write(
            MACHINE
            + f"clock_us {1795435200000000 + i * 1000000 + i * 137}\n"
            + ("xid gpu=1 code=31\n" if i >= 10 else "")
        )
        seen.append(m.read())
    size = m.save(tmp_path / "r")
    print("size", size)
    env = dict(fake_nvml.environment)
    r = gpu_machine(fake_nvml, kind="replay", path=str(tmp_path / "r"))
    import gzip

    raw = gzip.decompress((tmp_path / "r").read_bytes())
    print(len(raw))
    again = [r.read() for _ in range(61)]
    print(r.read())
    diff = 0
    for i, (a, b) in enumerate(zip(seen, again)):
        for x, y in zip(a.events, b.events):
            d = {
                k: (x.values.get(k), y.values.get(k))
                for k in {*x.values, *y.values}
                if x.values.get(k) != y.values.get(k) and k != "counter_epoch"
            }
            if d:
                print(i, x.kind, str(d)[:300])
                diff += 1
        if len(a.events) != len(b.events):
            print(i, [e.kind for e in a.events], [e.kind for e in b.events])
    assert diff == 5
