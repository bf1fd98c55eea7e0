//! Checks parameters against the published API, and phrases refusals in its terms.

use super::call::Call;
use super::parameters::{Parameters, not_valid};
use super::schema::{ActionSchema, ParameterSchema, Support, schema};
use crate::error::{ApiError, ErrorKind, INVALID_PARAMETER, MISSING_PARAMETER, TOKEN_VALUE};

/// Codes that name the parameter at fault, by parameter; the first one that the action lists is used.
const PARAMETER_CODES: &[(&str, &[&str])] = &[
    ("AcceptLanguage", &["InvalidAcceptLanguage.NotFound"]),
    ("AddEntry", &["LimitExceed.Entry"]),
    ("AddressFamily", &["InvalidParameter.AddressFamily"]),
    ("Amount", &["InvalidParam.Amount"]),
    ("Attribute", &["InvalidParameter.AttributeNotSupported"]),
    ("ClientToken", &["InvalidClientToken.ValueNotSupported"]),
    ("ConnectionTrackingConfiguration", &["InvalidParameter.EniConnectionTrackingConfiguration"]),
    ("Direction", &["InvalidParamter"]),
    ("Entry", &["LimitExceed.Entry"]),
    ("InnerAccessPolicy", &["InvalidPolicy.Malformed"]),
    ("MinAmount", &["InvalidMinAmount.Malformed"]),
    ("NextToken", &["InValidParameter.NextToken"]),
    ("NicType", &["InvalidNicType.ValueNotSupported"]),
    ("Permissions", &["InvalidParam.Permissions"]),
    ("RemoveEntry", &["LimitExceed.Entry"]),
    ("ResourceId", &["NumberExceed.ResourceIds"]),
    ("ResourceType", &["InvalidResourceType.NotFound"]),
    ("SecurityGroupId", &["InvalidSecurityGroupId.Malformed"]),
    ("SecurityGroupIds", &["InvalidSecurityGroupId.Malformed"]),
    ("SecurityGroupRuleId", &["InvalidParam.SecurityGroupRuleId"]),
    ("SecurityGroupType", &["InvalidParams.GroupType", "InvalidParameter.SecurityGroupType"]),
    ("Status", &["InvalidStatus.NotFound"]),
    ("Tag", &["NumberExceed.Tags", "InvalidTagCount", "QuotaExceed.Tags"]),
    ("TagKey", &["NumberExceed.Tags", "InvalidTagCount"]),
];

/// Codes to use instead if an action does not list one.
const OTHER_CODES: &[(&str, &[&str])] = &[
    ("InvalidIp.IpAssigned", &["InvalidPrivateIpAddress.Duplicated", "InvalidIp.IpRepeated"]),
    ("InvalidIp.IpRepeated", &["InvalidPrivateIpAddress.Duplicated"]),
    ("InvalidVSwitchId.IpInvalid", &["InvalidPrivateIpAddress.Mismatch", "InvalidPrivateIpAddress"]),
    ("InvalidIp.Address", &["InvalidPrivateIpAddress.Malformed", "InValidParameter", "InvalidParameter"]),
    ("InvalidVSwitchId.IpNotEnough", &["QuotaExceeded.PrivateIpAddress"]),
    (
        "InvalidOperation.VpcMismatch",
        &["InvalidSecurityGroupVpc.NotBelongToOneVpc", "InvalidSecurityGroup.NotInDefaultVpc"],
    ),
    (
        "InvalidOperation.EniCountExceeded",
        &["InvalidOperation.NetworkInterfaceCountExceeded", "SecurityGroupInstanceLimitExceed"],
    ),
    ("InvalidSecurityGroup.IsSame", &["InvalidParamter.Conflict"]),
    ("InvalidOperation.MultiGroupType", &["EnterpriseGroupLimited.MutliGroupType", "InvalidParameter"]),
    ("InvalidParameter.SecurityGroupIdRepeated", &["InvalidParameter"]),
    ("MaxEniPrivateIpsCountExceeded", &["InvalidOperation.Ipv4CountExceeded"]),
    ("MaxEniIpv6IpsCountExceeded", &["InvalidOperation.Ipv6CountExceeded", "MaxEniPrivateIpsCountExceeded"]),
    ("InvalidInstanceId.NotFound", &["InvalidEcsId.NotFound"]),
    ("IncorrectInstanceStatus", &["InvalidOperation.InvalidEcsState"]),
    ("QuotaExceed.Tags", &["OperationDenied.QuotaExceed"]),
    ("OperationDenied", &["InvalidParam.ProtocolAndPortRangeMismatch"]),
    ("InvalidResourceId.AlreadyExists", &["InvalidParameter"]),
    ("InvalidResourceGroup.NotFound", &["EntityNotExists.ResourceGroup"]),
    ("DependencyViolation.Uplink", &["OperationDenied"]),
    ("DependencyViolation.VpcPeer", &["OperationDenied"]),
    ("IncorrectEipStatus", &["InvalidIp.IpUnassigned", "InvalidParameter"]),
    ("InvalidParameter.Conflict", &["InvalidParameter"]),
    ("InvalidCidrBlock.Overlapped", &["InvalidParameter"]),
    ("InvalidCirdrBlock.MaskLength", &["InvalidParameter"]),
    ("InvalidDescription.Malformed", &["InvalidParameter"]),
    ("InvalidHostName.Malformed", &["InvalidParameter"]),
    ("InvalidInstanceName.Malformed", &["InvalidParameter"]),
    ("InvalidParams.NetworkInterfaceName", &["InvalidParameter"]),
    ("InvalidVpcName.Malformed", &["InvalidParameter"]),
    ("InvalidVpcDiscription.Malformed", &["InvalidParameter"]),
    ("InvalidVSwitchName.Malformed", &["InvalidParameter"]),
    ("InvalidVSwitchDiscription.Malformed", &["InvalidParameter"]),
    ("InvalidOperation.Ipv4CountExceeded", &["MaxEniPrivateIpsCountExceeded"]),
    ("InvalidOperation.Ipv6CountExceeded", &["MaxEniIpv6IpsCountExceeded", "MaxEniPrivateIpsCountExceeded"]),
];

/// Refuses parameters that are missing or not of their type.
///
/// # Errors
/// The first parameter at fault, with the action's code for it.
pub(in crate::ecs) fn check_parameters(action: &'static ActionSchema, parameters: &Parameters) -> Result<(), ApiError> {
    for fact in action.params.iter().filter(|fact| fact.required) {
        if !parameters.has(&fact.name) {
            return Err(missing(action, &fact.name));
        }
    }
    for fact in &action.params {
        check_support(action, fact, parameters)?;
        check_parameter(action, fact, parameters).map_err(|error| of_parameter(action, &fact.name, error))?;
    }
    match parameters.text("ClientToken") {
        Some(token) if token.len() > 64 || !token.is_ascii() => {
            Err(TOKEN_VALUE.error("The ClientToken provided is invalid.").field("ClientToken"))
        }
        _ => Ok(()),
    }
}

fn check_parameter(
    action: &'static ActionSchema,
    fact: &ParameterSchema,
    parameters: &Parameters,
) -> Result<(), ApiError> {
    match fact.kind.as_str() {
        "RepeatList<Object>" => {
            let entries = parameters.objects(&fact.name)?;
            check_count(fact, entries.len())?;
            for (_, entry) in entries {
                for field in &fact.fields {
                    let is_given = entry.has(&field.name) || entry.given(&field.name).is_some();
                    // A tag without its key has a refusal of its own.
                    if field.required && !is_given && fact.name != "Tag" {
                        return Err(missing(action, &format!("{}.N.{}", fact.name, field.name)));
                    }
                    check_scalar(field, &entry).map_err(|error| of_parameter(action, &field.name, error))?;
                }
            }
            Ok(())
        }
        "RepeatList<String>" => check_count(fact, parameters.list(&fact.name)?.len()),
        "Object" => {
            let object = parameters.object(&fact.name);
            fact.fields.iter().try_for_each(|field| check_scalar(field, &object))
        }
        _ => check_scalar(fact, parameters),
    }
}

/// Refuses a parameter that is not supported.
fn check_support(
    action: &'static ActionSchema,
    fact: &'static ParameterSchema,
    parameters: &Parameters,
) -> Result<(), ApiError> {
    let Support::Refused(code) = &fact.support else { return Ok(()) };
    if !parameters.has(&fact.name) {
        return Ok(());
    }
    let status = action.error(code, 400).map_or(400, |error| error.http);
    let kind = ErrorKind { code, status };
    Err(kind.error(format!("{} is not supported here: leave it out.", fact.name)).field(&fact.name))
}

fn check_count(fact: &ParameterSchema, count: usize) -> Result<(), ApiError> {
    match fact.max_items {
        Some(most) if count > most => {
            let message = format!("{} has {count} entries, at most {most} may be", fact.name);
            Err(INVALID_PARAMETER.error(message).field(&fact.name))
        }
        _ => Ok(()),
    }
}

fn check_scalar(fact: &ParameterSchema, parameters: &Parameters) -> Result<(), ApiError> {
    let Some(text) = parameters.text(&fact.name) else { return Ok(()) };
    match fact.kind.as_str() {
        "Boolean" => parameters.boolean(&fact.name).map(drop),
        "Integer" | "Long" => {
            let value = parameters.integer(&fact.name)?.unwrap_or(0);
            let low = fact.min.is_some_and(|least| value < least);
            // How large a list may be is a quota, which the model checks.
            let high = fact.max.is_some_and(|most| value > most) && fact.name != "MaxEntries";
            let listed = fact.values.is_empty() || fact.values.iter().any(|other| other.as_i64() == Some(value));
            match (low || high) && !fact.clamp || !listed {
                true => Err(not_valid(&fact.name)),
                false => Ok(()),
            }
        }
        "Double" => text.parse::<f64>().map(drop).map_err(|_| not_valid(&fact.name)),
        // The fields of a rule are checked with the rule, in its order. Where rules are listed, NicType has no meaning.
        _ if ["IpProtocol", "NicType", "Policy", "ResourceType"].contains(&fact.name.as_str()) => Ok(()),
        _ => match fact.values.is_empty() || published_value(fact, text).is_some() {
            true => Ok(()),
            false => Err(not_valid(&fact.name)),
        },
    }
}

/// The value of an enumeration, in the published letter case, for a text in any letter case.
pub(in crate::ecs) fn published_value<'a>(fact: &'a ParameterSchema, text: &str) -> Option<&'a str> {
    fact.values.iter().filter_map(serde_json::Value::as_str).find(|name| name.eq_ignore_ascii_case(text))
}

/// The refusal of a parameter, with the action's code for it.
pub(in crate::ecs) fn of_parameter(action: &'static ActionSchema, name: &str, error: ApiError) -> ApiError {
    if error.code != INVALID_PARAMETER.code {
        return error;
    }
    let codes = PARAMETER_CODES.iter().find(|(parameter, _)| *parameter == name).map_or(&[][..], |(_, codes)| codes);
    let fact = codes.iter().find(|code| action.lists(code)).and_then(|code| action.error(code, error.status));
    match fact {
        Some(fact) => ApiError { code: &fact.code, status: fact.http, ..error },
        None => error,
    }
}

/// The refusal of a missing parameter.
pub(in crate::ecs) fn missing(action: &'static ActionSchema, name: &str) -> ApiError {
    let message =
        format!("The input parameter \"{name}\" that is mandatory for processing this request is not supplied.");
    let error = MISSING_PARAMETER.error(message).field(name);
    let own =
        [format!("MissingParameter.{name}"), format!("MissingParamter.{name}"), format!("MissingParameter.{name}s")];
    if let Some(fact) = action.errors.iter().find(|fact| own.contains(&fact.code)) {
        return ApiError { code: &fact.code, status: fact.http, ..error };
    }
    if let Some(fact) = action.errors.iter().find(|fact| fact.code == "Invalid.Parameter" && name == "RegionId") {
        return ApiError { code: &fact.code, status: fact.http, ..error };
    }
    // Some actions list the code for the ends of a rule only, which is a different case.
    let plain = |status| {
        action.errors.iter().any(|fact| {
            fact.code == MISSING_PARAMETER.code && fact.http == status && !fact.message.contains("both blank")
        })
    };
    if !plain(400) && plain(403) { ApiError { status: 403, ..error } } else { error }
}

/// A refusal in the action's terms: its code for the case, its status, and its message before ours.
pub(in crate::ecs) fn in_words_of(action: &'static ActionSchema, mut error: ApiError) -> ApiError {
    if !action.lists(error.code) {
        let others = OTHER_CODES.iter().find(|(code, _)| *code == error.code).map_or(&[][..], |(_, others)| others);
        let has = |code: &&&str| action.lists(code) || schema().common_errors.iter().any(|fact| fact.code == **code);
        let other = others.iter().find(has).and_then(|code| action.error(code, error.status));
        if let Some(fact) = other {
            error.code = &fact.code;
            error.status = fact.http;
        }
    }
    let Some(fact) = action.error(error.code, error.status) else { return error };
    let kept = error.code == MISSING_PARAMETER.code;
    if !kept {
        error.status = fact.http;
    }
    let general = !fact.message.is_empty() && !fact.message.contains("%s") && !kept;
    if general && !error.message.contains(&fact.message) {
        error.message = format!("{} {}", fact.message, error.message);
    }
    error
}

/// A refusal in the action's terms.
pub fn refusal(call: &Call, error: ApiError) -> ApiError {
    in_words_of(call.action.schema(), error)
}
