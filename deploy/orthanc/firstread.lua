-- Orthanc sends each new radiograph to Firstread as soon as it has it, and never sends Firstread's results back.
function OnStoredInstance(instanceId, tags, metadata, origin)
  local modality = tags['Modality'] or ''
  local sentByFirstread = origin['RequestOrigin'] == 'DicomProtocol' and origin['RemoteAet'] == 'FIRSTREAD'
  if (modality == 'CR' or modality == 'DX') and not sentByFirstread then
    SendToModality(instanceId, 'firstread')
  end
end
