//! A call of every action, or several where one does not name everything that the action may name. `$noun` stands for
//! an object; each place where one stands is tried with what belongs to somebody else.

/// By action. A new action fails the walk until it has its calls here.
pub(crate) const CALLS: &[(&str, &[&str])] = &[
    ("CreateSecurityGroup", &["VpcId=$vpc"]),
    (
        "DescribeSecurityGroups",
        &["", "SecurityGroupId=$group", "SecurityGroupIds=[\"$group\"]", "VpcId=$vpc", "Tag.1.Key=k", "MaxResults=1"],
    ),
    ("DescribeSecurityGroupAttribute", &["SecurityGroupId=$group"]),
    ("DescribeSecurityGroupReferences", &["SecurityGroupId.1=$other"]),
    (
        "AuthorizeSecurityGroup",
        &[
            "SecurityGroupId=$group&IpProtocol=tcp&PortRangeListId=$port_list&SourcePrefixListId=$prefix_list&Priority=2",
            "SecurityGroupId=$group&IpProtocol=all&SourceGroupId=$other",
            "SecurityGroupId=$group&IpProtocol=all&SourceGroupId=$other&SourceGroupOwnerId=$account",
            "SecurityGroupId=$group&Permissions.1.IpProtocol=all&Permissions.1.SourceGroupId=$other&\
             Permissions.1.SourceGroupOwnerAccount=$account",
            "SecurityGroupId=$group&Permissions.1.IpProtocol=tcp&Permissions.1.PortRangeListId=$port_list&\
             Permissions.1.SourcePrefixListId=$prefix_list&Permissions.1.Priority=2",
        ],
    ),
    (
        "AuthorizeSecurityGroupEgress",
        &[
            "SecurityGroupId=$group&IpProtocol=tcp&PortRangeListId=$port_list&DestPrefixListId=$prefix_list",
            "SecurityGroupId=$group&IpProtocol=tcp&PortRange=1/1&DestGroupId=$other&DestGroupOwnerId=$account",
            "SecurityGroupId=$group&Permissions.1.IpProtocol=tcp&Permissions.1.PortRangeListId=$port_list&\
             Permissions.1.DestPrefixListId=$prefix_list",
            "SecurityGroupId=$group&Permissions.1.IpProtocol=tcp&Permissions.1.PortRange=1/1&\
             Permissions.1.DestGroupId=$other&Permissions.1.DestGroupOwnerAccount=$account",
        ],
    ),
    (
        "RevokeSecurityGroup",
        &[
            "SecurityGroupId=$group&SecurityGroupRuleId.1=$ingress",
            "SecurityGroupId=$group&IpProtocol=tcp&PortRangeListId=$port_list&SourcePrefixListId=$prefix_list",
            "SecurityGroupId=$group&Permissions.1.IpProtocol=tcp&Permissions.1.PortRangeListId=$port_list&\
             Permissions.1.SourcePrefixListId=$prefix_list",
            "SecurityGroupId=$group&IpProtocol=all&SourceGroupId=$third&SourceGroupOwnerId=$account",
            "SecurityGroupId=$group&Permissions.1.IpProtocol=all&Permissions.1.SourceGroupId=$third&\
             Permissions.1.SourceGroupOwnerId=$account",
        ],
    ),
    (
        "RevokeSecurityGroupEgress",
        &[
            "SecurityGroupId=$group&SecurityGroupRuleId.1=$egress",
            "SecurityGroupId=$group&IpProtocol=all&DestGroupId=$other&DestGroupOwnerId=$account",
            "SecurityGroupId=$group&Permissions.1.IpProtocol=all&Permissions.1.DestGroupId=$other&\
             Permissions.1.DestGroupOwnerId=$account",
            "SecurityGroupId=$group&IpProtocol=tcp&PortRangeListId=$port_list&DestPrefixListId=$prefix_list&Priority=9",
            "SecurityGroupId=$group&Permissions.1.IpProtocol=tcp&Permissions.1.PortRangeListId=$port_list&\
             Permissions.1.DestPrefixListId=$prefix_list&Permissions.1.Priority=9",
        ],
    ),
    (
        "ModifySecurityGroupRule",
        &[
            "SecurityGroupId=$group&SecurityGroupRuleId=$ingress&PortRangeListId=$port_list&\
             SourcePrefixListId=$prefix_list&Priority=3",
            "SecurityGroupId=$group&SecurityGroupRuleId=$named&SourceGroupId=$other&SourceGroupOwnerId=$account",
            "SecurityGroupId=$group&IpProtocol=all&SourceGroupId=$third&Description=changed",
        ],
    ),
    (
        "ModifySecurityGroupEgressRule",
        &[
            "SecurityGroupId=$group&SecurityGroupRuleId=$outward&PortRangeListId=$port_list&\
             DestPrefixListId=$prefix_list&Priority=3",
            "SecurityGroupId=$group&SecurityGroupRuleId=$egress&DestGroupId=$third&DestGroupOwnerId=$account",
            "SecurityGroupId=$group&IpProtocol=all&DestGroupId=$other&Description=changed",
        ],
    ),
    ("ModifySecurityGroupPolicy", &["SecurityGroupId=$group&InnerAccessPolicy=Drop"]),
    ("ModifySecurityGroupAttribute", &["SecurityGroupId=$group&SecurityGroupName=renamed"]),
    ("DeleteSecurityGroup", &["SecurityGroupId=$free"]),
    (
        "JoinSecurityGroup",
        &["SecurityGroupId=$other&InstanceId=$instance", "SecurityGroupId=$other&NetworkInterfaceId=$eni"],
    ),
    (
        "LeaveSecurityGroup",
        &["SecurityGroupId=$third&InstanceId=$instance", "SecurityGroupId=$third&NetworkInterfaceId=$eni"],
    ),
    ("ModifyInstanceAttribute", &["InstanceId=$instance&InstanceName=renamed&SecurityGroupIds.1=$other"]),
    (
        "ModifyNetworkInterfaceAttribute",
        &["NetworkInterfaceId=$eni&NetworkInterfaceName=renamed&SecurityGroupId.1=$other"],
    ),
    ("CreatePrefixList", &["AddressFamily=IPv4&MaxEntries=2&PrefixListName=new"]),
    ("ModifyPrefixList", &["PrefixListId=$prefix_list&PrefixListName=renamed"]),
    ("DeletePrefixList", &["PrefixListId=$free_prefix_list"]),
    ("DescribePrefixLists", &["", "PrefixListId.1=$prefix_list", "Tag.1.Key=k"]),
    ("DescribePrefixListAttributes", &["PrefixListId=$prefix_list"]),
    ("DescribePrefixListAssociations", &["PrefixListId=$prefix_list"]),
    ("CreatePortRangeList", &["MaxEntries=2&PortRangeListName=new"]),
    ("ModifyPortRangeList", &["PortRangeListId=$port_list&PortRangeListName=renamed"]),
    ("DeletePortRangeList", &["PortRangeListId=$free_port_list"]),
    ("DescribePortRangeLists", &["", "PortRangeListId.1=$port_list", "Tag.1.Key=k"]),
    ("DescribePortRangeListEntries", &["PortRangeListId=$port_list"]),
    ("DescribePortRangeListAssociations", &["PortRangeListId=$port_list"]),
    (
        "TagResources",
        &[
            "ResourceType=securitygroup&ResourceId.1=$group&Tag.1.Key=x&Tag.1.Value=y",
            "ResourceType=eni&ResourceId.1=$eni&Tag.1.Key=x&Tag.1.Value=y",
            "ResourceType=instance&ResourceId.1=$instance&Tag.1.Key=x&Tag.1.Value=y",
            "ResourceType=prefixlist&ResourceId.1=$prefix_list&Tag.1.Key=x&Tag.1.Value=y",
            "ResourceType=portrangelist&ResourceId.1=$port_list&Tag.1.Key=x&Tag.1.Value=y",
        ],
    ),
    (
        "UntagResources",
        &["ResourceType=securitygroup&ResourceId.1=$group&TagKey.1=k", "ResourceType=eni&ResourceId.1=$eni&All=true"],
    ),
    (
        "ListTagResources",
        &["ResourceType=instance", "ResourceType=eni&ResourceId.1=$eni", "ResourceType=securitygroup&Tag.1.Key=k"],
    ),
    ("AddTags", &["ResourceType=securitygroup&ResourceId=$group&Tag.1.Key=x&Tag.1.Value=y"]),
    ("RemoveTags", &["ResourceType=eni&ResourceId=$eni&Tag.1.Key=k", "ResourceType=instance&ResourceId=$instance"]),
    ("DescribeTags", &["", "ResourceType=eni&ResourceId=$eni"]),
    ("DescribeResourceByTags", &["Tag.1.Key=k", "ResourceType=instance&Tag.1.Key=k"]),
    ("JoinResourceGroup", &["ResourceType=securitygroup&ResourceId=$group&ResourceGroupId=rg-1"]),
    (
        "CreateNetworkInterface",
        &["VSwitchId=$vswitch&SecurityGroupId=$group", "VSwitchId=$vswitch&SecurityGroupIds.1=$group"],
    ),
    ("AttachNetworkInterface", &["InstanceId=$instance&NetworkInterfaceId=$eni"]),
    ("DetachNetworkInterface", &["InstanceId=$instance&NetworkInterfaceId=$attached"]),
    ("DeleteNetworkInterface", &["NetworkInterfaceId=$eni"]),
    (
        "DescribeNetworkInterfaces",
        &[
            "",
            "NetworkInterfaceId.1=$eni",
            "VSwitchId=$vswitch",
            "VpcId=$vpc",
            "SecurityGroupId=$group",
            "InstanceId=$instance",
            "Tag.1.Key=k",
        ],
    ),
    ("DescribeNetworkInterfaceAttribute", &["NetworkInterfaceId=$eni"]),
    ("AssignPrivateIpAddresses", &["NetworkInterfaceId=$eni&SecondaryPrivateIpAddressCount=1"]),
    ("UnassignPrivateIpAddresses", &["NetworkInterfaceId=$eni&PrivateIpAddress.1=$secondary"]),
    ("AssignIpv6Addresses", &["NetworkInterfaceId=$eni&Ipv6AddressCount=1"]),
    ("UnassignIpv6Addresses", &["NetworkInterfaceId=$eni&Ipv6Address.1=$ipv6"]),
    (
        "RunInstances",
        &[
            "VSwitchId=$vswitch&SecurityGroupId=$group&Amount=2&NetworkInterface.1.VSwitchId=$vswitch&\
             NetworkInterface.1.SecurityGroupId=$other",
            "VSwitchId=$vswitch&SecurityGroupIds.1=$group&NetworkInterface.1.NetworkInterfaceId=$eni",
            "NetworkInterface.1.InstanceType=Primary&NetworkInterface.1.VSwitchId=$vswitch&\
             NetworkInterface.1.SecurityGroupIds.1=$group",
            "VSwitchId=$vswitch&DryRun=true",
        ],
    ),
    (
        "CreateInstance",
        &[
            "InstanceType=ecs.g7.large&VSwitchId=$vswitch&SecurityGroupId=$group",
            "InstanceType=ecs.g7.large&VSwitchId=$vswitch&SecurityGroupIds.1=$group",
        ],
    ),
    ("StartInstance", &["InstanceId=$stopped"]),
    ("StartInstances", &["InstanceId.1=$stopped", "InstanceId.1=$stopped&BatchOptimization=SuccessFirst"]),
    ("StopInstance", &["InstanceId=$instance", "InstanceId=$instance&DryRun=true"]),
    ("StopInstances", &["InstanceId.1=$instance", "InstanceId.1=$instance&BatchOptimization=SuccessFirst"]),
    ("RebootInstance", &["InstanceId=$instance"]),
    ("DeleteInstance", &["InstanceId=$stopped"]),
    ("DeleteInstances", &["InstanceId.1=$instance&Force=true", "InstanceId.1=$stopped&DryRun=true"]),
    (
        "DescribeInstances",
        &[
            "",
            "InstanceIds=[\"$instance\"]",
            "VpcId=$vpc",
            "VSwitchId=$vswitch",
            "SecurityGroupId=$group",
            "Tag.1.Key=k",
        ],
    ),
    ("DescribeInstanceStatus", &["", "InstanceId.1=$instance"]),
    ("DescribeInstanceAttribute", &["InstanceId=$instance"]),
    ("ModifyInstanceVpcAttribute", &["InstanceId=$stopped&VSwitchId=$vswitch&VpcId=$vpc&SecurityGroupId.1=$other"]),
    ("DescribeInstanceRamRole", &["", "InstanceIds=[\"$instance\"]"]),
    ("DescribeInstanceMaintenanceAttributes", &["", "InstanceId.1=$instance"]),
    ("DescribeInstanceAttachmentAttributes", &["", "InstanceIds=[\"$instance\"]"]),
    ("DescribeInstanceAutoRenewAttribute", &["", "InstanceId=$instance"]),
    ("ModifyInstanceMetadataOptions", &["InstanceId=$instance&HttpTokens=required"]),
    ("ModifyInstanceMaintenanceAttributes", &["InstanceId.1=$instance&ActionOnMaintenance=Stop"]),
    ("ModifyInstanceAutoRenewAttribute", &["InstanceId=$instance&RenewalStatus=Normal"]),
    ("ModifyInstanceDeployment", &["InstanceId=$instance&DeploymentSetId=ds-1"]),
    ("ModifyInstanceAttachmentAttributes", &["InstanceId=$instance&PrivatePoolOptions.MatchCriteria=None"]),
    ("ModifyInstanceChargeType", &["InstanceIds=[\"$instance\"]&InstanceChargeType=PostPaid"]),
    ("ModifyInstanceAutoReleaseTime", &["InstanceId=$instance&AutoReleaseTime=2027-01-01T00:00:00Z"]),
    ("AttachInstanceRamRole", &["InstanceIds=[\"$instance\"]&RamRoleName=reader"]),
    ("DetachInstanceRamRole", &["InstanceIds=[\"$instance\"]&RamRoleName=reader"]),
    ("ModifyInstanceNetworkSpec", &["InstanceId=$instance&InternetMaxBandwidthOut=5"]),
    ("AllocatePublicIpAddress", &["InstanceId=$instance"]),
    ("ModifyInstanceSpec", &["InstanceId=$stopped&InstanceType=ecs.g7.large"]),
    ("ModifyPrepayInstanceSpec", &["InstanceId=$stopped&InstanceType=ecs.g7.large"]),
    ("ReplaceSystemDisk", &["InstanceId=$stopped&ImageId=other"]),
    ("RebootInstances", &["InstanceId.1=$instance"]),
    ("DescribeDisks", &["", "DiskIds=[\"$disk\"]", "InstanceId=$instance"]),
    ("CreateDisk", &["ZoneId=$zone", "InstanceId=$instance"]),
    ("AttachDisk", &["DiskId=$free_disk&InstanceId=$instance"]),
    ("DetachDisk", &["DiskId=$disk&InstanceId=$instance"]),
    ("DeleteDisk", &["DiskId=$free_disk"]),
    ("ModifyDiskAttribute", &["DiskId=$disk&DiskName=root", "DiskIds.1=$disk&DiskName=root"]),
    ("ModifyDiskSpec", &["DiskId=$disk&DiskCategory=cloud_essd"]),
    ("ResizeDisk", &["DiskId=$disk&NewSize=50"]),
    ("DescribeSnapshots", &[""]),
    ("DescribeUserData", &["InstanceId=$instance"]),
    (
        "ImportKeyPair",
        &[
            "KeyPairName=new&PublicKeyBody=ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBxYAqNGoSY8ZSsTu4RhrsWZTsf6rZ3S9oyLhGRkRr5h",
        ],
    ),
    ("CreateKeyPair", &["KeyPairName=made"]),
    ("DescribeKeyPairs", &["", "KeyPairName=$key_pair"]),
    ("DeleteKeyPairs", &["KeyPairNames=[\"$key_pair\"]"]),
    ("AttachKeyPair", &["KeyPairName=$key_pair&InstanceIds=[\"$instance\"]"]),
    ("DetachKeyPair", &["KeyPairName=$key_pair&InstanceIds=[\"$instance\"]"]),
    ("sts:GetCallerIdentity", &[""]),
    ("rm:ListResourceGroups", &[""]),
    ("rm:GetResourceGroup", &["ResourceGroupId=rg-acfmdefault0001"]),
    ("DescribeAvailableResource", &["DestinationResource=Zone&ZoneId=$zone"]),
    ("DescribeInstanceTypes", &[""]),
    ("DescribeInstanceTypeFamilies", &[""]),
    ("DescribeImages", &[""]),
    ("DescribeImageSupportInstanceTypes", &["ImageId=aliyun_3_arm64_20G_alibase_20240926.vhd"]),
    ("DescribeRegions", &[""]),
    ("DescribeZones", &[""]),
    ("DescribeAccountAttributes", &[""]),
    ("vpc:CreateVpc", &["CidrBlock=10.0.0.0/8"]),
    ("vpc:DescribeVpcs", &["", "VpcId=$vpc", "DhcpOptionsSetId=$dhcp", "VpcOwnerId=$account", "Tag.1.Key=k"]),
    ("vpc:DescribeVpcAttribute", &["VpcId=$vpc"]),
    ("vpc:ModifyVpcAttribute", &["VpcId=$vpc&VpcName=renamed", "VpcId=$vpc&EnableIPv6=true"]),
    ("vpc:DeleteVpc", &["VpcId=$free_vpc", "VpcId=$free_vpc&DryRun=true"]),
    ("vpc:CreateVSwitch", &["VpcId=$vpc&CidrBlock=10.9.0.0/16&ZoneId=$zone"]),
    (
        "vpc:DescribeVSwitches",
        &["", "VSwitchId=$vswitch", "VpcId=$vpc", "VSwitchOwnerId=$account", "RouteTableId=$table", "Tag.1.Key=k"],
    ),
    ("vpc:DescribeVSwitchAttributes", &["VSwitchId=$vswitch"]),
    (
        "vpc:ModifyVSwitchAttribute",
        &["VSwitchId=$vswitch&VSwitchName=renamed", "VSwitchId=$plain_vswitch&Ipv6CidrBlock=7"],
    ),
    ("vpc:DeleteVSwitch", &["VSwitchId=$plain_vswitch", "VSwitchId=$plain_vswitch&DryRun=true"]),
    ("vpc:AssociateVpcCidrBlock", &["VpcId=$vpc&SecondaryCidrBlock=192.168.0.0/16"]),
    ("vpc:UnassociateVpcCidrBlock", &["VpcId=$free_vpc&SecondaryCidrBlock=192.168.0.0/16"]),
    ("vpc:CreateDefaultVpc", &[""]),
    ("vpc:CreateDefaultVSwitch", &["ZoneId=$zone"]),
    (
        "vpc:MoveResourceGroup",
        &[
            "ResourceType=vpc&ResourceId=$vpc&NewResourceGroupId=rg-1",
            "ResourceType=DhcpOptionsSet&ResourceId=$dhcp&NewResourceGroupId=rg-1",
        ],
    ),
    ("vpc:CreateDhcpOptionsSet", &["DomainName=example.com"]),
    ("vpc:GetDhcpOptionsSet", &["DhcpOptionsSetId=$dhcp"]),
    ("vpc:ListDhcpOptionsSets", &["", "DhcpOptionsSetId.1=$dhcp", "Tags.1.Key=k"]),
    ("vpc:UpdateDhcpOptionsSetAttribute", &["DhcpOptionsSetId=$dhcp&DomainName=example.org"]),
    ("vpc:DeleteDhcpOptionsSet", &["DhcpOptionsSetId=$free_dhcp"]),
    ("vpc:AttachDhcpOptionsSetToVpc", &["DhcpOptionsSetId=$dhcp&VpcId=$free_vpc"]),
    ("vpc:ReplaceVpcDhcpOptionsSet", &["DhcpOptionsSetId=$free_dhcp&VpcId=$vpc"]),
    ("vpc:DetachDhcpOptionsSetFromVpc", &["DhcpOptionsSetId=$dhcp&VpcId=$vpc"]),
    (
        "vpc:CreateVSwitchCidrReservation",
        &[
            "VSwitchId=$vswitch&VSwitchCidrReservationMask=28",
            "VSwitchId=$vswitch&VSwitchCidrReservationCidr=10.0.9.0/24",
        ],
    ),
    (
        "vpc:ModifyVSwitchCidrReservationAttribute",
        &["VSwitchCidrReservationId=$kept&VSwitchCidrReservationName=renamed"],
    ),
    ("vpc:DeleteVSwitchCidrReservation", &["VSwitchCidrReservationId=$kept"]),
    (
        "vpc:ListVSwitchCidrReservations",
        &["", "VSwitchCidrReservationIds.1=$kept", "VSwitchId=$plain_vswitch", "Tags.1.Key=k"],
    ),
    ("vpc:GetVSwitchCidrReservationUsage", &["VSwitchCidrReservationId=$kept"]),
    ("vpc:DescribeVRouters", &["", "VRouterId=$router"]),
    ("vpc:ModifyVRouterAttribute", &["VRouterId=$router&VRouterName=renamed"]),
    ("vpc:DescribeRouteTableList", &["", "VpcId=$vpc", "RouterId=$router", "RouteTableId=$table"]),
    ("vpc:DescribeRouteTables", &["", "RouterId=$router", "VRouterId=$router", "RouteTableId=$table"]),
    ("vpc:ModifyRouteTableAttributes", &["RouteTableId=$table&RouteTableName=renamed"]),
    (
        "vpc:DescribeRouteEntryList",
        &[
            "RouteTableId=$table&MaxResult=100",
            "RouteTableId=$table&RouteEntryId=$route",
            "RouteTableId=$table&NextHopId=$hop",
        ],
    ),
    (
        "vpc:CreateRouteEntry",
        &[
            "RouteTableId=$table&DestinationCidrBlock=192.168.7.0/24&NextHopId=$instance",
            "RouteTableId=$table&DestinationCidrBlock=192.168.7.0/24&NextHopType=NetworkInterface&NextHopId=$eni",
        ],
    ),
    (
        "vpc:CreateRouteEntries",
        &[
            "RouteEntries.1.RouteTableId=$table&RouteEntries.1.DstCidrBlock=192.168.7.0/24&\
             RouteEntries.1.NextHopType=Instance&RouteEntries.1.NextHop=$instance",
            "RouteEntries.1.RouteTableId=$table&RouteEntries.1.DstCidrBlock=192.168.7.0/24&\
             RouteEntries.1.NextHopType=NetworkInterface&RouteEntries.1.NextHop=$eni",
        ],
    ),
    (
        "vpc:ModifyRouteEntry",
        &[
            "RouteEntryId=$route&RouteEntryName=renamed",
            "RouteTableId=$table&DestinationCidrBlock=192.168.9.0/24&NewNextHopType=Instance&NewNextHopId=$instance",
        ],
    ),
    (
        "vpc:DeleteRouteEntry",
        &["RouteEntryId=$route", "RouteTableId=$table&DestinationCidrBlock=192.168.9.0/24&NextHopId=$hop"],
    ),
    (
        "vpc:DeleteRouteEntries",
        &[
            "RouteEntries.1.RouteTableId=$table&RouteEntries.1.RouteEntryId=$route",
            "RouteEntries.1.RouteTableId=$table&RouteEntries.1.DstCidrBlock=192.168.9.0/24&RouteEntries.1.NextHop=$hop",
        ],
    ),
    ("vpc:AllocateEipAddress", &["", "Name=one&Tag.1.Key=k"]),
    (
        "vpc:AssociateEipAddress",
        &[
            "AllocationId=$free_eip&InstanceId=$instance",
            "AllocationId=$free_eip&InstanceId=$eni&InstanceType=NetworkInterface",
            "AllocationId=$free_eip&InstanceId=$nat&InstanceType=Nat",
        ],
    ),
    (
        "vpc:UnassociateEipAddress",
        &[
            "AllocationId=$bound_eip&InstanceId=$hop&InstanceType=NetworkInterface",
            "AllocationId=$eip&InstanceId=$nat&Force=true",
        ],
    ),
    ("vpc:ReleaseEipAddress", &["AllocationId=$free_eip"]),
    (
        "vpc:DescribeEipAddresses",
        &["", "AllocationId=$eip", "AssociatedInstanceId=$nat&AssociatedInstanceType=Nat", "EipAddress=$nat_address"],
    ),
    ("vpc:ModifyEipAddressAttribute", &["AllocationId=$eip&Name=two&Bandwidth=7"]),
    ("vpc:CreateNatGateway", &["VpcId=$vpc&VSwitchId=$vswitch&Name=one"]),
    ("vpc:DescribeNatGateways", &["", "NatGatewayId=$nat", "VpcId=$vpc"]),
    ("vpc:ModifyNatGatewayAttribute", &["NatGatewayId=$nat&Name=two"]),
    ("vpc:DeleteNatGateway", &["NatGatewayId=$nat&Force=true"]),
    (
        "vpc:CreateSnatEntry",
        &[
            "SnatTableId=$snat_table&SourceVSwitchId=$plain_vswitch&SnatIp=$nat_address",
            "SnatTableId=$snat_table&SourceCIDR=10.2.0.0/16&SnatIp=$nat_address",
        ],
    ),
    (
        "vpc:DescribeSnatTableEntries",
        &[
            "SnatTableId=$snat_table&SnatEntryId=$snat",
            "NatGatewayId=$nat&SourceVSwitchId=$vswitch",
            "NetworkInterfaceIds.1=$eni",
        ],
    ),
    ("vpc:ModifySnatEntry", &["SnatTableId=$snat_table&SnatEntryId=$snat&SnatIp=$nat_address&SnatEntryName=two"]),
    ("vpc:DeleteSnatEntry", &["SnatTableId=$snat_table&SnatEntryId=$snat"]),
    (
        "vpc:CreateForwardEntry",
        &[
            "ForwardTableId=$forward_table&ExternalIp=$nat_address&ExternalPort=81&IpProtocol=tcp&InternalIp=10.0.0.9&InternalPort=81",
        ],
    ),
    (
        "vpc:DescribeForwardTableEntries",
        &["ForwardTableId=$forward_table&ForwardEntryId=$forward", "NatGatewayId=$nat", "ExternalIp=$nat_address"],
    ),
    (
        "vpc:ModifyForwardEntry",
        &["ForwardTableId=$forward_table&ForwardEntryId=$forward&ExternalIp=$nat_address&ForwardEntryName=two"],
    ),
    ("vpc:DeleteForwardEntry", &["ForwardTableId=$forward_table&ForwardEntryId=$forward"]),
    ("vpc:DescribeRegions", &[""]),
    ("vpc:DescribeZones", &[""]),
    (
        "vpc:TagResources",
        &[
            "ResourceType=vpc&ResourceId.1=$vpc&Tag.1.Key=x&Tag.1.Value=y",
            "ResourceType=vswitch&ResourceId.1=$vswitch&Tag.1.Key=x&Tag.1.Value=y",
        ],
    ),
    ("vpc:UnTagResources", &["ResourceType=vpc&ResourceId.1=$vpc&TagKey.1=k"]),
    ("vpc:ListTagResources", &["ResourceType=vpc", "ResourceType=vswitch&ResourceId.1=$vswitch"]),
];

/// Parameters that name an object of another kind than there are here, or no object.
pub(crate) const NO_OBJECTS: &[&str] = &[
    "ActivityId",
    "AutoSnapshotPolicyId",
    "ClusterId",
    "DedicatedHostClusterId",
    "DedicatedHostId",
    "DeploymentSetId",
    "HpcClusterId",
    "Id",
    "ImageId",
    "ImageOwnerId",
    "Ipv4IpamPoolId",
    "Ipv6IpamPoolId",
    "KMSKeyId",
    "LaunchTemplateId",
    "ManagedHostId",
    "NodeControllerId",
    "PrivatePoolOptions.Id",
    "PublicIpAddressPoolId",
    "RegionId",
    "ResourceGroupId",
    "NewResourceGroupId",
    "IpamPoolId",
    "ResourceGroupIds",
    "SegmentInstanceId",
    "SnapshotId",
    "StorageClusterId",
    "StorageSetId",
    "TrunkNetworkInstanceId",
    "VlanId",
    "ZoneId",
];
