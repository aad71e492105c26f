"""
The topology of a node for NCCL (NCCL_TOPO_FILE): which NIC is near which GPU.

Only what a machine without its true PCI tree visible, such as a virtual one, needs: bridges with the GPU and
the NICs that share them; NCCL finds NVLinks and the NICs' speeds itself. RCCL reads the same form. Addresses
on the PCI bus are stand-ins in the order of the rails: `lspci -D` on the first node says what is true.
"""

from colossi.spec.hardware import Node

GPU_CLASS, INFINIBAND_CLASS, ETHERNET_CLASS, BRIDGE_CLASS = "0x030200", "0x020700", "0x020000", "0x060400"
LINKS = {
    "ampere": "16.0 GT/s PCIe",
    "hopper": "32.0 GT/s PCIe",
    "blackwell": "32.0 GT/s PCIe",
}  # a lane's rate
SOCKETS = 2
# The affinity of each socket's half of 112 processors, 32 bits a word, as `lscpu` numbers them on a DGX H100.
AFFINITY = ("00000000,00000000,00ffffff,ffffffff", "00000000,0000ffff,ffffffff,ff000000,00000000")


def nccl_topology(node: Node) -> str:
    """The XML; without a prolog, which NCCL's own reader does not know."""
    speed = LINKS.get(node.gpu.architecture, LINKS["hopper"])
    nic_class = INFINIBAND_CLASS if node.network == "infiniband" else ETHERNET_CLASS
    lines = [
        f"<!-- {node.name}: stand-in addresses; put those of lspci -D in their place -->",
        '<system version="1">',
    ]
    per_socket = -(-node.gpus // SOCKETS)
    for socket in range(SOCKETS):
        gpus = range(socket * per_socket, min((socket + 1) * per_socket, node.gpus))
        if not gpus:
            continue
        lines.append(f'  <cpu numaid="{socket}" affinity="{AFFINITY[socket]}" arch="x86_64">')
        for gpu in gpus:
            bus = 0x10 + 0x10 * gpu
            lines.append(_pci(bus, BRIDGE_CLASS, speed, "    ", close=False))
            lines.append(_pci(bus + 1, GPU_CLASS, speed, "      "))
            lines += [
                _pci(bus + 2 + place, nic_class, speed, "      ")
                for place, _ in enumerate(nics_of(node, gpu))
            ]
            lines.append("    </pci>")
        lines.append("  </cpu>")
    lines.append("</system>")
    return "\n".join(lines) + "\n"


def nics_of(node: Node, gpu: int) -> range:
    """Rails under the same bridge as this GPU: as equal a share as may be, in order."""
    return range(gpu * node.nics // node.gpus, (gpu + 1) * node.nics // node.gpus)


def _pci(bus: int, kind: str, speed: str, indent: str, close: bool = True) -> str:
    end = "/>" if close else ">"
    return (
        f'{indent}<pci busid="0000:{bus:02x}:00.0" class="{kind}" link_speed="{speed}" link_width="16"{end}'
    )
