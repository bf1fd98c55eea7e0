//! Every refusal that a client can get: the cloud's code and HTTP status, and a message that names field, value and
//! what to do.

use serde::{Deserialize, Serialize};

/// A kind of refusal: the cloud's code for it, and the HTTP status it travels with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorKind {
    /// The code, in the cloud's spelling.
    pub code: &'static str,
    /// The HTTP status.
    pub status: u16,
}

/// A refused command. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The cloud's code.
    pub code: &'static str,
    /// The HTTP status that belongs to it.
    pub status: u16,
    /// The field of the command at fault, as in `rules[0].ports`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The object at fault, as in `sg-1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// What is wrong and what would be right.
    pub message: String,
}

/// [`ApiError`] as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ReportedError {
    /// The cloud's code.
    pub code: String,
    /// The HTTP status that belongs to it.
    pub status: u16,
    /// The field of the command at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The object at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl From<ApiError> for ReportedError {
    fn from(error: ApiError) -> Self {
        let ApiError { code, status, field, object, message } = error;
        Self { code: code.into(), status, field, object, message }
    }
}

impl ErrorKind {
    /// A refusal of this kind.
    pub fn error(self, message: impl Into<String>) -> ApiError {
        ApiError { code: self.code, status: self.status, field: None, object: None, message: message.into() }
    }
}

impl ApiError {
    /// Names the field at fault.
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Names the object at fault.
    pub fn object(mut self, object: impl ToString) -> Self {
        self.object = Some(object.to_string());
        self
    }

    /// Places the field inside a larger one: `ports` becomes `rules[0].ports`.
    pub fn within(mut self, outer: &str) -> Self {
        self.field = Some(match self.field {
            Some(field) => format!("{outer}.{field}"),
            None => outer.into(),
        });
        self
    }
}

macro_rules! kinds {
    ($($name:ident = $code:literal, $status:literal;)*) => {
        $(
            #[doc = concat!("`", $code, "`, HTTP ", stringify!($status), ".")]
            pub const $name: ErrorKind = ErrorKind { code: $code, status: $status };
        )*

        /// Every kind there is.
        pub const KINDS: &[ErrorKind] = &[$($name,)*];
    };
}

kinds! {
    // Requests as such. The names of the last four are Sluice's own: the cloud has no such errors.
    MISSING_PARAMETER = "MissingParameter", 400;
    INVALID_PARAMETER = "InvalidParameter", 400;
    FORBIDDEN = "Forbidden.Unauthorized", 403;
    INVALID_ACTION_NOT_FOUND = "InvalidAction.NotFound", 404;
    INTERNAL_ERROR = "InternalError", 500;
    SERVICE_UNAVAILABLE = "ServiceUnavailable", 503;
    REQUEST_TOO_LARGE = "RequestTooLarge", 413;
    REQUEST_TIMEOUT = "RequestTimeout", 408;
    FORWARDING_REFUSED = "ForwardingRefused", 409;
    FORWARDING_UNAVAILABLE = "ForwardingUnavailable", 503;

    // Requests of the HTTP interface.
    INVALID_VERSION = "InvalidVersion", 404;
    INCOMPLETE_SIGNATURE = "IncompleteSignature", 400;
    SIGNATURE_MISMATCH = "SignatureDoesNotMatch", 400;
    NONCE_USED = "SignatureNonceUsed", 400;
    ILLEGAL_TIMESTAMP = "IllegalTimestamp", 400;
    TIMESTAMP_EXPIRED = "InvalidTimeStamp.Expired", 400;
    TIMESTAMP_FORMAT = "InvalidTimeStamp.Format", 400;
    KEY_NOT_FOUND = "InvalidAccessKeyId.NotFound", 404;
    THROTTLING = "Throttling", 400;
    REGION_NOT_FOUND = "InvalidRegionId.NotFound", 404;
    TOKEN_MISMATCH = "IdempotentParameterMismatch", 400;
    TOKEN_VALUE = "InvalidClientToken.ValueNotSupported", 400;
    TOKEN_PROCESSING = "IdempotentProcessing", 403;
    DRY_RUN = "DryRunOperation", 400;

    // Identifiers, names and tables that all objects share.
    INVALID_ID_MALFORMED = "InvalidResourceId.Malformed", 400;
    ID_ALREADY_EXISTS = "InvalidResourceId.AlreadyExists", 409;
    INVALID_DESCRIPTION = "InvalidDescription.Malformed", 400;
    INVALID_PARAMETER_CONFLICT = "InvalidParameter.Conflict", 400;

    // VPCs.
    VPC_NOT_FOUND = "InvalidVpcId.NotFound", 404;
    VPC_NAME_MALFORMED = "InvalidVpcName.Malformed", 400;
    VPC_DESCRIPTION_MALFORMED = "InvalidVpcDiscription.Malformed", 400;
    QUOTA_VPC = "QuotaExceeded.Vpc", 400;
    DEPENDENCY_VSWITCH = "DependencyViolation.VSwitch", 400;
    DEPENDENCY_SECURITY_GROUP = "DependencyViolation.SecurityGroup", 400;
    DEPENDENCY_ROUTE_ENTRY = "DependencyViolation.RouteEntry", 400;
    RESERVATION_NOT_FOUND = "ResourceNotFound.VSwitchCidrReservation", 404;
    CIDR_BLOCK_IN_USE = "OperationFailed.CidrInUse", 400;
    CIDR_BLOCK_NOT_FOUND = "InvalidCidrBlock.NotFound", 404;
    QUOTA_CIDR_BLOCK = "QuotaExceeded.SecondaryCidrBlock", 400;
    ROUTE_ENTRY_NOT_FOUND = "InvalidRouteEntry.NotFound", 404;
    QUOTA_ROUTE_ENTRY = "QuotaExceeded.RouteEntry", 400;

    // vSwitches.
    VSWITCH_NOT_FOUND = "InvalidVSwitchId.NotFound", 404;
    VSWITCH_NAME_MALFORMED = "InvalidVSwitchName.Malformed", 400;
    VSWITCH_DESCRIPTION_MALFORMED = "InvalidVSwitchDiscription.Malformed", 400;
    CIDR_BLOCK_MALFORMED = "InvalidCidrBlock.Malformed", 400;
    CIDR_BLOCK_MASK = "InvalidCirdrBlock.MaskLength", 400;
    CIDR_BLOCK_OVERLAPPED = "InvalidCidrBlock.Overlapped", 400;
    QUOTA_VSWITCH = "QuotaExceeded.VSwitch", 400;
    DEPENDENCY_VSWITCH_IN_USE = "DependencyViolation", 400;

    // Network interfaces.
    ENI_NOT_FOUND = "InvalidEniId.NotFound", 404;
    ENI_NAME_MALFORMED = "InvalidParams.NetworkInterfaceName", 403;
    ENI_STATE = "InvalidOperation.InvalidEniState", 400;
    ENI_VPC_MISMATCH = "InvalidOperation.VpcMismatch", 403;
    ENI_COUNT_EXCEEDED = "MaxEniCountExceeded", 403;
    ENI_TIMEOUTS = "InvalidParameter.EniConnectionTrackingConfiguration", 400;
    ENI_IPV4_COUNT_EXCEEDED = "MaxEniPrivateIpsCountExceeded", 403;
    ENI_IPV6_COUNT_EXCEEDED = "MaxEniIpv6IpsCountExceeded", 403;
    ENI_IPV4_PREFIX_COUNT_EXCEEDED = "InvalidOperation.Ipv4CountExceeded", 403;
    ENI_IPV6_PREFIX_COUNT_EXCEEDED = "InvalidOperation.Ipv6CountExceeded", 403;
    IP_NOT_ENOUGH = "InvalidVSwitchId.IpNotEnough", 403;
    IP_OUTSIDE_VSWITCH = "InvalidVSwitchId.IpInvalid", 403;
    IP_MALFORMED = "InvalidIp.Address", 403;
    IP_REPEATED = "InvalidIp.IpRepeated", 403;
    IP_ASSIGNED = "InvalidIp.IpAssigned", 403;
    IP_UNASSIGNED = "InvalidIp.IpUnassigned", 403;
    IPV6_NOT_TURNED_ON = "InvalidVSwitch.Ipv6NotTurnOn", 403;
    MULTI_GROUP_TYPE = "InvalidOperation.MultiGroupType", 403;
    JOINED_GROUP_LIMIT = "JoinedGroupLimitExceed", 400;
    GROUP_ID_REPEATED = "InvalidParameter.SecurityGroupIdRepeated", 404;
    GROUP_MEMBER_LIMIT = "SecurityGroupInstanceLimitExceed", 403;
    ACL_LIMIT = "AclLimitExceed", 403;

    // Security groups and membership.
    GROUP_NOT_FOUND = "InvalidSecurityGroupId.NotFound", 404;
    GROUP_DELETE_NOT_FOUND = "InvalidSecurityGroup.NotFound", 404;
    GROUP_NAME_MALFORMED = "InvalidSecurityGroupName.Malformed", 400;
    GROUP_DESCRIPTION_MALFORMED = "InvalidSecurityGroupDiscription.Malformed", 400;
    GROUP_TYPE = "InvalidParams.GroupType", 400;
    GROUP_POLICY_MALFORMED = "InvalidPolicy.Malformed", 400;
    GROUP_INNER_ACCESS = "InvalidParameter.InnerAccessPolicy", 404;
    GROUP_MANAGED = "InvalidOperation.ResourceManagedByCloudProduct", 403;
    GROUP_DEPENDENCY = "DependencyViolation", 403;
    QUOTA_GROUP = "QuotaExceed.SecurityGroup", 403;
    JOIN_ALREADY_MEMBER = "InvalidInstanceId.AlreadyExists", 403;
    JOIN_GROUP_LIMIT = "InstanceSecurityGroupLimitExceeded", 403;
    JOIN_MEMBER_LIMIT = "SecurityGroupInstanceLimitExceeded", 403;
    JOIN_MULTI_GROUP_TYPE = "InvalidOperation.MultiGroupType", 400;
    LEAVE_LAST_GROUP = "InvalidOperation.AtLeastInOneGroup", 403;
    ADVANCED_GROUP_ENI_LIMIT = "InvalidOperation.EniCountExceeded", 403;
    LEAVE_NOT_MEMBER = "InvalidSecurityGroupAssociation.NotFound", 400;

    // Rules.
    RULES_PERMISSIONS = "InvalidParam.Permissions", 400;
    RULES_DUPLICATE = "InvalidParam.DuplicatePermissions", 400;
    RULE_NIC_TYPE = "InvalidNicType.ValueNotSupported", 400;
    RULE_PROTOCOL = "InvalidIpProtocol.ValueNotSupported", 400;
    RULE_PROTOCOL_AND_PORTS = "OperationDenied", 400;
    RULE_PORTS_MISSING = "InvalidPortRange.Malformed", 400;
    RULE_PORTS = "InvalidParam.PortRange", 400;
    RULE_SOURCE_PORTS = "InvalidSourcePortRange.Malformed", 400;
    RULE_POLICY = "InvalidPolicy.Malformed", 400;
    RULE_PRIORITY = "InvalidPriority.ValueNotSupported", 400;
    RULE_DESCRIPTION = "InvalidSecurityGroupDiscription.Malformed", 400;
    RULE_SOURCE_MISSING = "MissingParameter.Source", 400;
    RULE_DEST_MISSING = "MissingParameter.Dest", 400;
    RULE_SOURCE_CIDR = "InvalidParam.SourceCidrIp", 400;
    RULE_DEST_CIDR = "InvalidParam.DestCidrIp", 400;
    RULE_IPV6_SOURCE_CIDR = "InvalidParam.Ipv6SourceCidrIp", 400;
    RULE_IPV6_DEST_CIDR = "InvalidParam.Ipv6DestCidrIp", 400;
    RULE_SOURCE_FAMILIES = "InvalidParam.SourceIp", 400;
    RULE_DEST_FAMILIES = "InvalidParam.DestIp", 400;
    RULE_SAME_SIDES = "InvalidParamter.Conflict", 400;
    RULE_SELF_SOURCE = "InvalidParamter.Conflict", 403;
    RULE_SELF_DEST = "InvalidSecurityGroup.IsSame", 403;
    RULE_ICMP_WITH_IPV6 = "InvalidParam.Ipv4ProtocolConflictWithIpv6Address", 400;
    RULE_ICMPV6_WITH_IPV4 = "InvalidParam.Ipv6ProtocolConflictWithIpv4Address", 400;
    RULE_SOURCE_GROUP_NOT_FOUND = "InvalidSourceGroupId.NotFound", 404;
    RULE_DEST_GROUP_NOT_FOUND = "InvalidDestGroupId.NotFound", 404;
    RULE_SOURCE_GROUP_MISMATCH = "InvalidSourceGroupId.Mismatch", 400;
    RULE_DEST_GROUP_MISMATCH = "InvalidDestGroupId.Mismatch", 400;
    RULE_ADVANCED_HOLDER = "InvalidGroupParameter.OperationDenied", 400;
    RULE_ADVANCED_OBJECT = "InvalidGroupAuthParameter.OperationDenied", 400;
    RULE_PORT_LIST_PROTOCOL = "InvalidParam.ProtocolNotSupportPortRangeList", 400;
    RULE_LIST_FAMILY = "InvalidParam.PrefixListAddressFamilyMismatch", 400;
    RULE_LIMIT = "AuthorizationLimitExceed", 403;
    RULE_GROUP_OBJECT_LIMIT = "AuthorizedGroupRule.LimitExceed", 400;
    RULE_LIST_RESOURCE_LIMIT = "LimitExceed.PrefixListAssociationResource", 403;
    RULE_ID = "InvalidParam.SecurityGroupRuleId", 400;
    RULE_NOT_EXIST = "InvalidSecurityGroupRule.RuleNotExist", 400;
    RULE_ID_NOT_FOUND = "InvalidSecurityGroupRuleId.NotFound", 404;
    RULE_DUPLICATE = "InvalidOperation.RuleDuplicate", 400;
    RULE_ENTITY_TYPE = "InvalidOperation.ModifySgRuleEntityType", 400;
    RULE_PORT_RANGE_TYPE = "InvalidOperation.ModifyPortRangeType", 400;
    RULE_MODIFY_EMPTY = "InvalidParam.InvalidModifyRuleRequest", 400;

    // The way out: uplinks, floating addresses, NAT gateways, peerings. The cloud has no uplinks.
    UPLINK_NOT_FOUND = "InvalidUplinkId.NotFound", 404;
    UPLINK_EXISTS = "InvalidVpcId.UplinkExists", 400;
    DEPENDENCY_UPLINK = "DependencyViolation.Uplink", 400;
    DEPENDENCY_NAT_GATEWAY = "DependencyViolation.NatGateway", 400;
    DEPENDENCY_PEERING = "DependencyViolation.VpcPeer", 400;
    EIP_NOT_FOUND = "InvalidAllocationId.NotFound", 404;
    EIP_STATUS = "IncorrectEipStatus", 400;
    EIP_DUPLICATED = "InvalidAssociation.Duplicated", 400;
    EIP_NOT_ENOUGH = "ReserveIpFail", 400;
    EIP_ADDRESS = "InvalidIpAddress.NotAvailable", 400;
    EIP_TARGET_NOT_FOUND = "InvalidInstanceId.NotFound", 404;
    EIP_IN_USE = "EipUsedInNatEntry", 400;
    QUOTA_EIP = "QuotaExceeded.Eip", 400;
    NAT_NOT_FOUND = "InvalidNatGatewayId.NotFound", 404;
    NAT_IN_USE = "DependencyViolation.Eips", 400;
    QUOTA_NAT = "QuotaExceeded.NatGateway", 400;
    SNAT_NOT_FOUND = "InvalidSnatEntryId.NotFound", 404;
    SNAT_ADDRESS = "InvalidSnatIp.NotFound", 404;
    SNAT_DUPLICATED = "Forbidden.SourceVSwitchId.Duplicated", 400;
    QUOTA_SNAT = "Forbidden.SnatEntryCountLimited", 400;
    FORWARD_NOT_FOUND = "InvalidForwardEntryId.NotFound", 404;
    FORWARD_DUPLICATED = "Forbidden.DuplicatedForward", 400;
    FORWARD_PORT = "InvalidExternalPort.Malformed", 400;
    FORWARD_PROTOCOL = "InvalidProtocal.ValueNotSupported", 400;
    FORWARD_EXTERNAL = "InvalidExternalIp.NotFound", 404;
    FORWARD_INTERNAL = "Forbidden.DestnationIpOutOfVpcCIDR", 400;
    QUOTA_FORWARD = "QuotaExceeded.ForwardEntry", 400;
    PEERING_NOT_FOUND = "ResourceNotFound.InstanceId", 404;
    PEERING_DUPLICATED = "ResourceAlreadyExist.Router", 400;
    NAT_NAME = "InvalidName.Malformed", 400;

    // Instances and metadata.
    INSTANCE_NOT_FOUND = "InvalidInstanceId.NotFound", 404;
    INSTANCE_STATUS = "IncorrectInstanceStatus", 403;
    INSTANCE_NAME = "InvalidInstanceName.Malformed", 400;
    INSTANCE_HOST_NAME = "InvalidHostName.Malformed", 400;
    INSTANCE_PROTECTED = "InvalidOperation.DeletionProtection", 403;
    INSTANCE_ENI_LIMIT = "EniPerInstanceLimitExceeded", 403;
    INSTANCE_MOVE_DENIED = "OperationDenied", 403;
    INSTANCE_PRIMARY_ENI = "InvalidOperation.DetachPrimaryEniNotAllowed", 400;
    TAG_LIMIT = "QuotaExceed.Tags", 403;

    // Prefix lists.
    PREFIX_LIST_NOT_FOUND = "InvalidPrefixListId.NotFound", 404;
    PREFIX_LIST_NAME = "InvalidParameter.PrefixListName", 400;
    PREFIX_LIST_FAMILY = "InvalidParameter.AddressFamily", 400;
    PREFIX_LIST_CIDR = "InvalidParameter.CidrMalformed", 400;
    PREFIX_LIST_CIDR_DUPLICATED = "InvalidParameter.CidrDuplicated", 400;
    LIST_MAX_ENTRIES = "LimitExceed.MaxEntries", 400;
    LIST_ENTRIES = "LimitExceed.Entry", 400;
    QUOTA_PREFIX_LIST = "LimitExceed.PrefixListPerRegion", 404;
    PREFIX_LIST_IN_USE = "NotAllowed.AssociationExist", 400;

    // Port lists.
    PORT_LIST_NOT_FOUND = "InvalidPortRangeListId.NotFound", 400;
    PORT_LIST_NAME = "InvalidParameter.PortRangeListName", 400;
    PORT_LIST_MAX_ENTRIES = "InvalidOperation.MaxEntriesCountExceed", 400;
    PORT_LIST_RANGE = "InvalidParameter.PortRange", 400;
    PORT_LIST_RANGE_DUPLICATED = "InvalidParameter.PortRangeDuplicated", 400;
    QUOTA_PORT_LIST = "InvalidOperation.MaxCountExceed", 400;
    PORT_LIST_IN_USE = "InvalidPortRangeListId.AssociationExist", 400;
    QUOTA_RECORD = "QuotaExceeded", 400;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_a_client_or_server_error() {
        for kind in KINDS {
            assert!((400..600).contains(&kind.status), "{} has status {}", kind.code, kind.status);
            assert!(kind.code.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '.'), "{}", kind.code);
        }
    }

    #[test]
    fn a_field_is_told_with_its_place() {
        let error = RULE_PORTS.error("no").field("ports").within("rules[2]");
        assert_eq!(error.field.as_deref(), Some("rules[2].ports"));
    }
}
