# What scripts/clients/terraform applies, changes, imports and destroys.

terraform {
  required_providers {
    alicloud = {
      source = "aliyun/alicloud"
    }
  }
}

variable "endpoint" {
  description = "Where Sluice listens: HOST:PORT."
}

variable "stream" {
  description = "What becomes of port 9000 from the client to the server: accept or drop."
  default     = "accept"
}

variable "ping" {
  description = "Whether the server may be pinged."
  default     = false
}

provider "alicloud" {
  region                 = "cn-hangzhou"
  access_key             = "testid"
  secret_key             = "testsecret"
  account_id             = "1234567890123456"
  account_type           = "Domestic" # or each command asks the billing service for half a minute
  skip_region_validation = true

  endpoints {
    ecs             = var.endpoint
    vpc             = var.endpoint
    sts             = var.endpoint
    resourcemanager = var.endpoint
  }
}

data "alicloud_zones" "all" {
  available_resource_creation = "VSwitch"
}

data "alicloud_instance_types" "small" {
  availability_zone = data.alicloud_zones.all.zones[0].id
  cpu_core_count    = 2
}

data "alicloud_images" "linux" {
  name_regex  = "^ubuntu"
  most_recent = true
  owners      = "system"
}

resource "alicloud_vpc" "lab" {
  vpc_name    = "lab"
  cidr_block  = "10.0.0.0/16"
  description = "made by Terraform"
  tags        = { made-by = "terraform" }
}

resource "alicloud_vswitch" "lab" {
  vswitch_name = "lab"
  vpc_id       = alicloud_vpc.lab.id
  cidr_block   = "10.0.1.0/24"
  zone_id      = data.alicloud_zones.all.zones[0].id
}

resource "alicloud_security_group" "server" {
  security_group_name = "server"
  vpc_id              = alicloud_vpc.lab.id
  inner_access_policy = "Drop"
}

resource "alicloud_security_group" "client" {
  security_group_name = "client"
  vpc_id              = alicloud_vpc.lab.id
}

resource "alicloud_ecs_prefix_list" "offices" {
  prefix_list_name = "offices"
  address_family   = "IPv4"
  max_entries      = 5

  entry {
    cidr        = "192.168.0.0/24"
    description = "one office"
  }

  entry {
    cidr = "192.168.8.0/21"
  }
}

resource "alicloud_security_group_rule" "by_cidr" {
  security_group_id = alicloud_security_group.server.id
  type              = "ingress"
  ip_protocol       = "tcp"
  port_range        = "443/443"
  cidr_ip           = "10.0.0.0/8"
  description       = "by address"
}

resource "alicloud_security_group_rule" "by_ipv6_cidr" {
  security_group_id = alicloud_security_group.server.id
  type              = "ingress"
  ip_protocol       = "udp"
  port_range        = "53/53"
  ipv6_cidr_ip      = "2001:db8:3c4d:15::/64"
}

resource "alicloud_security_group_rule" "by_prefix_list" {
  security_group_id = alicloud_security_group.server.id
  type              = "ingress"
  ip_protocol       = "tcp"
  port_range        = "22/22"
  prefix_list_id    = alicloud_ecs_prefix_list.offices.id
  priority          = 5
}

resource "alicloud_security_group_rule" "by_group" {
  security_group_id        = alicloud_security_group.server.id
  type                     = "ingress"
  ip_protocol              = "tcp"
  port_range               = "9000/9000"
  source_security_group_id = alicloud_security_group.client.id
  policy                   = var.stream
}

resource "alicloud_security_group_rule" "out" {
  security_group_id = alicloud_security_group.client.id
  type              = "egress"
  ip_protocol       = "all"
  cidr_ip           = "0.0.0.0/0"
  priority          = 10
}

resource "alicloud_security_group_rule" "ping" {
  count             = var.ping ? 1 : 0
  security_group_id = alicloud_security_group.server.id
  type              = "ingress"
  ip_protocol       = "icmp"
  port_range        = "-1/-1"
  cidr_ip           = "10.0.1.0/24"
}

resource "alicloud_ecs_network_interface" "extra" {
  network_interface_name = "extra"
  vswitch_id             = alicloud_vswitch.lab.id
  security_group_ids     = [alicloud_security_group.server.id]
  primary_ip_address     = "10.0.1.100"
}

resource "alicloud_instance" "guest" {
  for_each        = { server = alicloud_security_group.server.id, client = alicloud_security_group.client.id }
  instance_name   = each.key
  host_name       = each.key
  vswitch_id      = alicloud_vswitch.lab.id
  security_groups = [each.value]
  instance_type   = data.alicloud_instance_types.small.instance_types[0].id
  image_id        = data.alicloud_images.linux.images[0].id
}

resource "alicloud_ecs_network_interface_attachment" "extra" {
  network_interface_id = alicloud_ecs_network_interface.extra.id
  instance_id          = alicloud_instance.guest["server"].id
}

resource "alicloud_route_entry" "behind_server" {
  route_table_id        = alicloud_vpc.lab.route_table_id
  destination_cidrblock = "192.168.77.0/24"
  nexthop_type          = "Instance"
  nexthop_id            = alicloud_instance.guest["server"].id
}

output "security_group" {
  value = alicloud_security_group.server.id
}

output "server" {
  value = alicloud_instance.guest["server"].id
}

output "client" {
  value = alicloud_instance.guest["client"].id
}

output "server_address" {
  value = alicloud_instance.guest["server"].private_ip
}

# What the instances are outside: a floating address of one, and a gateway for the others.

resource "alicloud_eip_address" "server" {
  address_name         = "server"
  bandwidth            = "10"
  internet_charge_type = "PayByTraffic"
  tags                 = { made-by = "terraform" }
}

resource "alicloud_eip_association" "server" {
  allocation_id = alicloud_eip_address.server.id
  instance_id   = alicloud_instance.guest["server"].id
  instance_type = "EcsInstance"
}

resource "alicloud_nat_gateway" "lab" {
  nat_gateway_name = "lab"
  vpc_id           = alicloud_vpc.lab.id
  vswitch_id       = alicloud_vswitch.lab.id
  nat_type         = "Enhanced"
  payment_type     = "PayAsYouGo"
}

resource "alicloud_eip_address" "gateway" {
  address_name         = "gateway"
  internet_charge_type = "PayByTraffic"
}

resource "alicloud_eip_association" "gateway" {
  allocation_id = alicloud_eip_address.gateway.id
  instance_id   = alicloud_nat_gateway.lab.id
  instance_type = "Nat"
}

resource "alicloud_snat_entry" "lab" {
  snat_entry_name   = "lab"
  snat_table_id     = alicloud_nat_gateway.lab.snat_table_ids
  source_vswitch_id = alicloud_vswitch.lab.id
  snat_ip           = alicloud_eip_address.gateway.ip_address
  depends_on        = [alicloud_eip_association.gateway]
}

resource "alicloud_forward_entry" "web" {
  forward_entry_name = "web"
  forward_table_id   = alicloud_nat_gateway.lab.forward_table_ids
  external_ip        = alicloud_eip_address.gateway.ip_address
  external_port      = "8080"
  ip_protocol        = "tcp"
  internal_ip        = alicloud_instance.guest["client"].private_ip
  internal_port      = "80"
  depends_on         = [alicloud_eip_association.gateway]
}
