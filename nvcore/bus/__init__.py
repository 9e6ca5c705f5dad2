"""Where devices come from: sysfs PCI, kernel VFIO, vfio-user sockets. In this release only the scan of sysfs; buses come from plugins."""
