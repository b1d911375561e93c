"""The network on a chip: place neurons on cores, route spikes on a mesh, time and price them."""

from firstspike._lazy import on_first_use

# public name -> module of this package that defines it
_PUBLIC: dict[str, str] = {
    **dict.fromkeys(("Chip", "chip_names", "load_chip"), "chip"),
    **dict.fromkeys(("Mapping", "map_network"), "mapping"),
    "Group": "partition",
    **dict.fromkeys(("Fanout", "fanout"), "fan_out"),
    **dict.fromkeys(("Annealed", "RowMajor", "Spectral", "place"), "placement"),
    **dict.fromkeys(("LinkLoads", "link_loads"), "routing"),
    **dict.fromkeys(("Traffic", "profile_traffic", "record_spikes", "traffic_of"), "traffic"),
    **dict.fromkeys(("NocResult", "simulate_noc"), "noc"),
    **dict.fromkeys(("MeshStream", "stream_of"), "stream"),
    **dict.fromkeys(("LateResult", "run_late"), "delays"),
    "chip_energy": "frame_energy",
    **dict.fromkeys(("HardwareReport", "run_hardware"), "run"),
    **dict.fromkeys(("hardware_rows", "hardware_tables"), "chip_tables"),
}

__all__ = sorted(_PUBLIC)
__getattr__, __dir__ = on_first_use(__name__, _PUBLIC)
